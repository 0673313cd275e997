"""What is known of the code in front of each of its instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.analysis import Blocks
from bpfpatch.analysis.backward import Masks
from bpfpatch.analysis.initialized import initialized
from bpfpatch.analysis.liveness import Liveness
from bpfpatch.btf import Btf
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import LOST, Mask

from ..cover.flow import may_vanish
from ..scratch import Scratch, fastcall_sequences
from ..sites import indirect_targets
from .kfuncs import with_stand_ins
from .locks import held
from .maybe import MaybeSet

_MAY_GOTO_BYTES: Final = 16
"""What the kernel adds to the frame of a function with a may_goto."""


class State:
    """The code of a list as it is now.

    Args:
        patches: the list.
        names: of kernel functions, by the slot of the call in the original program.
        btf: types that have their prototypes.
        programs: slots of the original program where a program starts.

    Attributes:
        view: the code, with helper calls for those of kernel functions.
        blocks: its blocks, which end at calls that may not return.
        writes: (n,) registers that each instruction defines or destroys.
    """

    def __init__(
        self,
        patches: PatchList,
        names: dict[int, str] | None = None,
        btf: Btf | None = None,
        programs: tuple[int, ...] = (0,),
    ) -> None:
        view, program, names = patches.view(), patches.program, names or {}
        kfuncs = {
            slot: names[node] for slot, node in enumerate(view.node.tolist()) if node in names
        }
        self._inside = _inside_sequences(view)
        self.view = view = with_stand_ins(view, kfuncs, btf)
        throws = [slot for slot, name in kfuncs.items() if name == "bpf_throw"]
        leaves = may_vanish(view, np.array(throws, np.int32))
        self.blocks = blocks = Blocks.of(view, indirect_targets(program, view), leaves)
        # A global function's arguments are checked where it is called, read or not.
        known = _initialized(view, blocks, Liveness.of(view, blocks))
        liveness = Liveness.of(view, blocks, known)
        self.writes = liveness.writes
        self._live = liveness.before
        self._set = _initialized(view, blocks, liveness)
        mains = np.flatnonzero(np.isin(view.node, programs)).astype(np.int32)
        self._maybe = MaybeSet(view, blocks, liveness.writes, mains)
        self._held = held(view, blocks, kfuncs)
        self._scratch = Scratch(view, blocks)

    def live(self, slot: int) -> int:
        """Registers that somebody reads later, in front of an instruction, as a mask."""
        return int(self._live[slot]) & self._maybe.at(slot)

    def known(self, slot: int) -> int:
        """Registers that have a value: all ways there set them, or somebody reads them later."""
        return (int(self._set[slot]) | int(self._live[slot])) & self._maybe.at(slot)

    def obstacle(self, slot: int) -> str:
        """Why no helper can be called in front of an instruction, or ""."""
        if self._inside[slot]:
            return "it is inside of a sequence that the kernel knows and that must stay together"
        if self._held[slot]:
            return "a lock may be held, and the kernel allows no calls of helpers then"
        return ""

    def block(self, slot: int) -> int:
        """The number of the block that a slot is in."""
        return int(np.searchsorted(self.blocks.start, slot, side="right")) - 1

    def is_jumped_to(self, slot: int) -> bool:
        """Whether some jump leads to the instruction."""
        view = self.view
        hits: Mask = ~view.ref_is_entry & (view.ref_target == slot) & (view.ref_target != LOST)
        block = self.block(slot)
        return bool(hits.any()) or any(block in goals for goals in self.blocks.indirect.values())

    def home(self, slot: int, n_bytes: int) -> int | str:
        """Bytes below R10 of n_bytes of the frame that are nobody's, or why there are none."""
        subprog = int(self.view.subprog_of(np.array([slot], np.int32))[0])
        bounds = [*self.view.starts.tolist(), len(self.view)]
        body = self.view.insns[bounds[subprog] : bounds[subprog + 1]]
        more = _MAY_GOTO_BYTES if isa.is_may_goto(body).any() else 0
        bottom = self._scratch.home(subprog, n_bytes + more)
        if bottom is not None:
            return bottom - more
        stack = self._scratch.stack
        if not stack.is_known[subprog]:
            return (
                f"{n_bytes} bytes of stack are needed, and which of them are free is not known: "
                "an address in the frame is given to another function, or computed"
            )
        return (
            f"{n_bytes} bytes of stack are needed, and the function may have "
            f"{max(int(stack.room[subprog]) - more, 0)} more; trace fewer registers"
        )


def _inside_sequences(view: CodeView) -> Mask:
    out = np.zeros(len(view), bool)
    starts = np.flatnonzero(view.node >= 0).astype(np.int32)
    for begin, end in fastcall_sequences(view.insns, starts):
        out[begin : end + 1] = True
    return out


def _initialized(view: CodeView, blocks: Blocks, liveness: Liveness) -> Masks:
    """Registers that are set, where the first function may be any, not a program only."""
    # The first of the starts counts as a program's; a second one at the same place does not.
    starts = np.concatenate([view.starts[:1], view.starts])
    return initialized(replace(view, starts=starts), blocks, liveness)
