"""The code of a list as it is now, in flat arrays: what analyses and passes look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Program
from bpfpatch.program.types import LOST, Insns, Mask, Slots, ascends, frozen, gather

from .state import ListState

_FEW: Final = 4
"""So many nodes are looked for faster than all nodes' slots are written down."""


class Layout:
    """Which pool slot is where.

    Attributes:
        pool_slot: (n,) the pool slot that comes to each flat slot.
        is_identity: nothing was edited, and every node is its slot.
    """

    def __init__(self, state: ListState, pool: NDArray[np.uint64]) -> None:
        """Assign a flat slot to every live node; an ld_imm64 takes two."""
        self._n_pool = state.n_pool
        self._order = state.order
        self.is_identity = state.is_pristine and state.order.size == state.n_pool
        self._start: Slots | None = None
        self.pool_slot = state.order
        if not state.has_wide:
            return
        is_wide = pool[: state.n_pool].view(isa.INSN)["code"] == isa.LD_IMM64
        is_wide = gather(is_wide, state.order)
        self._start = np.empty(state.order.size, np.int32)
        n_slots = state.order.size + int(np.count_nonzero(is_wide))
        self.pool_slot = np.empty(n_slots, np.int32)
        first = 0
        # In portions: NumPy makes eight bytes of each width.
        for part in isa.portions(state.order.size):
            width = is_wide[part] + np.int32(1)
            start = np.cumsum(width, dtype=np.int32) - width
            here = np.repeat(state.order[part], width)
            here[start[is_wide[part]] + 1] += 1
            self.pool_slot[first : first + here.size] = here
            self._start[part] = start + np.int32(first)
            first += here.size

    def insns(self, pool: NDArray[np.uint64]) -> Insns:
        """(n,) the instructions; they stay as they are, whatever becomes of the pool."""
        if self.is_identity and not pool.flags.writeable:
            return pool.view(isa.INSN)
        return gather(pool, self.pool_slot).view(isa.INSN)

    @cached_property
    def slot_of(self) -> Slots:
        """(n_pool,) flat slot of each live node, -1 elsewhere."""
        out = np.full(self._n_pool, -1, np.int32)
        for part in isa.portions(self._order.size):  # for the cache's sake
            here = self._order[part]
            if self._start is None:
                out[here] = np.arange(part.start, part.start + here.size, dtype=np.int32)
            else:
                out[here] = self._start[part]
        return out

    def slots(self, nodes: Slots) -> Slots:
        """(n,) flat slots of nodes; LOST for LOST, -1 for what is not alive."""
        if self.is_identity:
            return nodes
        if nodes.size <= _FEW and "slot_of" not in vars(self):
            return np.array([self._find(node) for node in nodes.tolist()], np.int32)
        out = gather(self.slot_of, nodes)  # LOST, which is -1, is put right below
        if nodes.size and int(nodes.min()) == LOST:
            out[nodes == LOST] = LOST
        return out

    def positions(self, slots: NDArray[Any]) -> NDArray[Any]:
        """(n,) index in the order of nodes of those whose first slots these are."""
        return slots if self._start is None else np.searchsorted(self._start, slots)

    def _find(self, node: int) -> int:
        """The flat slot of one node, or LOST."""
        at = np.flatnonzero(self._order == node)
        if not at.size:
            return LOST
        return int(at[0] if self._start is None else self._start[at[0]])


def in_order(slots: Slots, *others: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Arrays without the rows whose slot is negative, by ascending slot."""
    if slots.size and int(slots.min()) < 0:
        alive = slots >= 0
        slots, others = slots[alive], tuple(values[alive] for values in others)
    if ascends(slots):
        return slots, *others
    by_slot = np.argsort(slots, kind="stable")
    return slots[by_slot], *(values[by_slot] for values in others)


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

    def __post_init__(self) -> None:
        # What is the list's own, or the program's, is handed out as it is.
        for name in ("insns", "node", "ref_slot", "ref_target", "ref_is_entry", "starts", "land"):
            object.__setattr__(self, name, frozen(getattr(self, name)))

    @classmethod
    def of_list(cls, state: ListState, pool: NDArray[np.uint64]) -> Self:
        """The view of a merged list."""
        layout = Layout(state, pool)
        insns = layout.insns(pool)
        second = isa.second_slots(insns)
        node = layout.pool_slot
        if second.any():
            node = np.where(second, np.int32(-1), node)
        slot, target, is_entry = in_order(
            layout.slots(state.ref_node), state.ref_target, state.ref_is_entry
        )
        entry = state.entry[state.starts]
        survives = np.flatnonzero(entry != LOST).astype(np.int32)
        return cls(
            insns=insns,
            node=node,
            ref_slot=slot,
            ref_target=layout.slots(target),
            ref_is_entry=is_entry,
            starts=layout.slots(entry[survives]),
            subprog=survives,
            land=layout.slots(state.land),
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
