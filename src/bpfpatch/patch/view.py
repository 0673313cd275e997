"""The code of a list as it is now, in flat arrays: what analyses and passes look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Program
from bpfpatch.program.types import LOST, Insns, Mask, Slots, gather

from .state import ListState

_CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which pool slot is where.

    Attributes:
        pool_slot: (n,) the pool slot that comes to each flat slot.
        slot_of: (n_pool,) flat slot of each live node, -1 elsewhere.
    """

    pool_slot: Slots
    slot_of: Slots


def lay_out(state: ListState, pool: NDArray[np.uint64]) -> Layout:
    """Assign a flat slot to every live node; an ld_imm64 takes two."""
    order = state.order
    slot_of = np.full(state.n_pool, -1, np.int32)
    is_wide = pool[: state.n_pool].view(isa.INSN)["code"] == isa.LD_IMM64
    if not is_wide.any():
        for first in range(0, order.size, _CHUNK):  # in portions, for the cache's sake
            part = order[first : first + _CHUNK]
            slot_of[part] = np.arange(first, first + part.size, dtype=np.int32)
        return Layout(order, slot_of)
    is_wide = gather(is_wide, order)
    width = is_wide + np.int32(1)
    start = np.cumsum(width, dtype=np.int32) - width
    slot_of[order] = start
    pool_slot = np.repeat(order, width)
    pool_slot[start[is_wide] + 1] += 1
    return Layout(pool_slot, slot_of)


@dataclass(frozen=True, slots=True, eq=False)
class CodeView:
    """Code in flat slots, with its references as slots whatever their fields say.

    Attributes:
        insns: (n,) `isa.INSN`; distances in reference fields are meaningless.
        node: (n,) node at each slot; -1 at second slots of ld_imm64.
        ref_slot: (r,) referring slots, ascending.
        ref_target: (r,) slots that they refer to, or LOST.
        ref_is_entry: (r,) calls and function addresses, not jumps.
        starts: (m,) first slots of the surviving subprogs, ascending.
        subprog: (m,) their rows in the original program's ``subprogs``.
        land: (n_original,) slot where a jump to an original slot arrives, or LOST.
        n_original: slots of the original program: nodes below are original ones.
    """

    insns: Insns
    node: Slots
    ref_slot: Slots
    ref_target: Slots
    ref_is_entry: Mask
    starts: Slots
    subprog: Slots
    land: Slots
    n_original: int

    @classmethod
    def of_list(cls, state: ListState, pool: NDArray[np.uint64]) -> Self:
        """The view of a merged list."""
        layout = lay_out(state, pool)
        slot_of = layout.slot_of
        node = layout.pool_slot.copy()
        insns = gather(pool, node).view(isa.INSN)
        node[isa.second_slots(insns)] = -1
        slot = slot_of[state.ref_node]
        alive = np.flatnonzero(slot >= 0)
        by_slot = alive[np.argsort(slot[alive], kind="stable")]
        target = state.ref_target[by_slot]
        entry = state.entry[state.starts]
        survives = np.flatnonzero(entry != LOST).astype(np.int32)
        return cls(
            insns=insns,
            node=node,
            ref_slot=slot[by_slot],
            ref_target=np.where(target == LOST, LOST, slot_of[target]),
            ref_is_entry=state.ref_is_entry[by_slot],
            starts=slot_of[entry[survives]],
            subprog=survives,
            land=np.where(state.land == LOST, LOST, slot_of[state.land]),
            n_original=state.land.size,
        )

    @classmethod
    def of_program(cls, program: Program) -> Self:
        """The view of a program, whose nodes are its slots."""
        return cls.of_list(ListState.of(program), program.insns.view(np.uint64))

    def __len__(self) -> int:
        """Length in slots."""
        return len(self.insns)

    def subprog_of(self, slots: Slots) -> Slots:
        """(n,) index into ``starts`` for each slot."""
        return np.searchsorted(self.starts, slots, side="right").astype(np.int32) - 1
