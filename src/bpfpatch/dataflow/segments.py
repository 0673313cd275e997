"""Blocks cut after every call of a subprog, for analyses that go through calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

from .blocks import Blocks

NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Pieces of blocks in which a call of a subprog, if any, comes last.

    Attributes:
        start: (s,) first slot of each, ascending.
        last: (s,) slot of each one's last instruction.
        subprog: (s,) index into the view's ``starts``.
        falls: (s,) number of the segment that control can run into, or NOWHERE.
        jump: (s,) number of the segment that the last instruction jumps to, or NOWHERE.
        callee: (s,) subprog that the last instruction calls, or NOWHERE.
        is_exit: (s,) whether the last instruction is an exit.
        is_gotox: (s,) whether it is an indirect jump.
        indirect: the segments that a gotox can reach, by subprog.
        entry: m numbers of the subprogs' first segments.
        jumpers: for each segment those that jump to it, as a slice of ``jumper``.
        jumper: segments that jump, in the order of where to.
        is_pointed_at: m truths: whether the subprog's address is taken: a callback.
    """

    start: Slots
    last: Slots
    subprog: Slots
    falls: Slots
    jump: Slots
    callee: Slots
    is_exit: Mask
    is_gotox: Mask
    indirect: dict[int, list[int]]
    entry: list[int]
    jumpers: list[int]
    jumper: list[int]
    is_pointed_at: list[bool]

    @classmethod
    def of(cls, view: CodeView, blocks: Blocks) -> Self:
        """The segments of a view."""
        is_live = view.ref_is_entry & (view.ref_target != LOST)
        slot, target = view.ref_slot[is_live], view.ref_target[is_live]
        is_call = isa.is_subprog_call(view.insns)[slot]
        is_block, is_start = np.zeros(len(view), bool), np.zeros(len(view) + 1, bool)
        is_block[blocks.start] = True
        is_start[blocks.start] = True
        is_start[slot[is_call] + 1] = True
        start = np.flatnonzero(is_start[:-1]).astype(np.int32)
        count = start.size
        # The block of each segment, and whether it is that block's first one, or last one.
        is_first = is_block[start]
        block = np.cumsum(is_first, dtype=np.int32) - 1
        is_end = np.append(is_first[1:], True) if count else np.zeros(0, bool)
        last = np.append(start[1:], len(view))[:count].astype(np.int32) - 1
        last[is_end] = blocks.last[block[is_end]]
        falls = np.where(~is_end | blocks.falls[block], np.arange(1, count + 1), NOWHERE)
        falls[falls == count] = NOWHERE
        goal = np.where(is_end, blocks.jump[block], LOST)
        segment_of = np.flatnonzero(is_first)
        jump = np.where(goal == LOST, NOWHERE, segment_of[goal] if count else goal)
        callee = np.full(count, NOWHERE, np.int32)
        callee[np.searchsorted(last, slot[is_call])] = view.subprog_of(target[is_call])
        jumping = np.flatnonzero(jump != NOWHERE)
        jumping = jumping[np.argsort(jump[jumping], kind="stable")]
        n_jumpers = np.bincount(jump[jumping], minlength=count)
        pointed_at = np.zeros(len(view.starts), bool)
        pointed_at[view.subprog_of(target[~is_call])] = True
        return cls(
            start=start,
            last=last,
            subprog=blocks.subprog[block],
            falls=falls.astype(np.int32),
            jump=jump.astype(np.int32),
            callee=callee,
            is_exit=isa.is_exit(view.insns)[last],
            is_gotox=is_end & blocks.is_indirect[block],
            indirect={
                owner: segment_of[numbers].tolist() for owner, numbers in blocks.indirect.items()
            },
            entry=np.searchsorted(start, view.starts).tolist(),
            jumpers=[0, *np.cumsum(n_jumpers).tolist()],
            jumper=jumping.tolist(),
            is_pointed_at=pointed_at.tolist(),
        )

    def __len__(self) -> int:
        return len(self.start)
