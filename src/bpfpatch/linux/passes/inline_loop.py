"""inline-loop: bpf_loop as a loop in place of its call."""

from __future__ import annotations

from dataclasses import dataclass
from errno import E2BIG
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.columns import CALLBACK, NONE, STACK_DEPTH
from bpfpatch.isa import R0, R1, R2, R3, R6, R7, R8, R10
from bpfpatch.passes.base import Pass, register
from bpfpatch.passes.search import CodeIndex
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import LOST, Mask

from .fixups.depths import set_stack_depths, stack_depths

MAX_LOOPS: Final = 8 * 1024 * 1024
_LOOP: Final = isa.HELPER_IDS["loop"]
_WORD: Final = 8
_SAVED: Final = 3 * _WORD
_CALL_SLOT: Final = 12


@register
@dataclass(frozen=True)
class InlineLoop(Pass):
    """Write out calls of bpf_loop whose flags are 0 and whose callback is always the same.

    R6, R7 and R8 hold the bound, the counter and the callback's argument; they
    are saved in three slots below the subprog's frame, whose depth grows by
    that.

    Source: linux v6.18, kernel/bpf/verifier.c, optimize_bpf_loop(), compared
    with what such a kernel makes of it.
    """

    name = "inline-loop"
    is_internal = True
    needs = (CALLBACK, STACK_DEPTH)

    def run(self, patches: PatchList) -> None:
        """Replace the calls that the column ``callback`` names."""
        view = patches.view()
        calls = CodeIndex(view).helper_calls
        calls = calls[view.insns["imm"][calls] == _LOOP]
        if not calls.size:
            return
        callback = patches.aux_at(CALLBACK, view.node)
        callback[view.node < 0] = NONE
        sites = calls[callback[calls] != NONE]
        if not sites.size:
            return
        is_load = callback != NONE
        is_load[calls] = False
        heads = _heads(view, callback, is_load)
        depths = stack_depths(patches)
        row = view.subprog[view.subprog_of(sites)]
        depths[np.unique(row)] += _SAVED
        pairs, which = np.unique(
            np.stack([callback[sites], depths[row]]), axis=1, return_inverse=True
        )
        for index, (number, depth) in enumerate(pairs.T.tolist()):
            some = sites[which.reshape(-1) == index]
            patches.replace(view.node[some], _loop(heads[number], -depth))
        set_stack_depths(patches, depths)


def _heads(view: CodeView, callback: np.ndarray, is_load: Mask) -> dict[int, int]:
    """The first node of each callback, by its number in the column."""
    refs = np.flatnonzero(is_load[view.ref_slot] & (view.ref_target != LOST))
    nodes = view.node[view.ref_target[refs]]
    return dict(zip(callback[view.ref_slot[refs]].tolist(), nodes.tolist(), strict=True))


def _loop(callback: int, stack_off: int) -> Body:
    """The loop.

    Args:
        callback: the first node of the function to call.
        stack_off: of the lowest of the three slots.
    """
    saved = [(reg, stack_off + _WORD * index) for index, reg in enumerate((R6, R7, R8))]
    insns = isa.concat(
        [
            isa.jump("<=", R1, MAX_LOOPS, 2),
            isa.mov32(R0, -E2BIG),
            isa.ja(16),
            *(isa.store("u64", R10, off, reg) for reg, off in saved),
            isa.mov(R6, R1),
            isa.mov32(R7, 0),
            isa.mov(R8, R3),
            isa.jump(">=", R7, R6, 5),
            isa.mov(R1, R7),
            isa.mov(R2, R8),
            isa.call_subprog(0),
            isa.alu("+=", R7, 1),
            isa.jump("==", R0, 0, -6),
            isa.mov(R0, R7),
            *(isa.load("u64", reg, R10, off) for reg, off in saved),
        ]
    )
    return Body(insns, labels={_CALL_SLOT: callback})
