"""Basic blocks, and the edges between them, of code as it stands in a list or program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The basic blocks of a view.

    Calls do not end a block. An indirect jump (gotox) has an edge to every
    indirect target of its subprog; where none is known, to every instruction.

    Attributes:
        start: (b,) first slot of each block, ascending.
        last: (b,) slot of each block's last instruction.
        subprog: (b,) index into the view's ``starts``.
        falls: (b,) whether control can run into the next block.
        jump: (b,) block that the last instruction jumps to, or LOST for none.
        indirect: block numbers that a gotox can reach, by index into ``starts``.
        is_indirect: (b,) whether the block ends in a gotox.
    """

    start: Slots
    last: Slots
    subprog: Slots
    falls: Mask
    jump: Slots
    indirect: dict[int, list[int]]
    is_indirect: Mask

    @classmethod
    def of(cls, view: CodeView, indirect_targets: Slots, leaves: Slots | None = None) -> Self:
        """The blocks of a view.

        Args:
            view: the code.
            indirect_targets: slots that jump tables name.
            leaves: slots of further instructions that end a block: calls that may not return.
        """
        n_slots = len(view)
        insns = view.insns
        is_jump = ~view.ref_is_entry
        targets = view.ref_target[is_jump]
        jumps = view.ref_slot[is_jump]
        is_gotox = isa.is_uncond_jump(insns)
        is_gotox[jumps] = False
        is_exit = isa.is_exit(insns)
        indirect_targets = _complete(
            view, np.flatnonzero(is_gotox).astype(np.int32), indirect_targets
        )
        ends = np.concatenate([jumps, np.flatnonzero(is_gotox | is_exit)])
        leaders = np.zeros(n_slots + 1, bool)
        leaders[view.starts] = True
        leaders[targets[targets != LOST]] = True
        leaders[indirect_targets] = True
        leaders[ends + 1] = True
        if leaves is not None:
            leaders[leaves + 1] = True
        start = np.flatnonzero(leaders[:n_slots]).astype(np.int32)
        end = np.append(start[1:], n_slots)[: start.size].astype(np.int32)
        last = end - 1
        is_second = view.node[last] < 0
        last[is_second] -= 1
        block_of = np.cumsum(leaders[:n_slots], dtype=np.int32) - 1
        jump_target = np.full(n_slots, LOST, np.int32)
        jump_target[jumps] = targets
        goal = jump_target[last]
        return cls(
            start=start,
            last=last,
            subprog=view.subprog_of(start),
            falls=isa.falls_through(insns)[last],
            jump=np.where(goal == LOST, LOST, block_of[goal]),
            indirect=_by_subprog(view, block_of, indirect_targets),
            is_indirect=is_gotox[last],
        )

    def __len__(self) -> int:
        return int(self.start.size)


def _complete(view: CodeView, gotox: Slots, known: Slots) -> Slots:
    """The known indirect targets, and all that a gotox might reach in subprogs without any."""
    unclear = np.setdiff1d(view.subprog_of(gotox), view.subprog_of(known))
    if not unclear.size:
        return known
    slots = np.flatnonzero(view.node >= 0).astype(np.int32)
    return np.concatenate([known, slots[np.isin(view.subprog_of(slots), unclear)]])


def _by_subprog(view: CodeView, block_of: Slots, targets: Slots) -> dict[int, list[int]]:
    out: dict[int, list[int]] = {}
    unique = np.unique(targets)
    for owner, slot in zip(view.subprog_of(unique).tolist(), unique.tolist(), strict=True):
        out.setdefault(owner, []).append(int(block_of[slot]))
    return out
