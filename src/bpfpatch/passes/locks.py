"""Where a lock may be held: no helper can be called there but the one that gives it back.

Source: linux v6.18, kernel/bpf/verifier.c, do_check_insn(): "function calls are not allowed
while holding a lock".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

LOCKING: Final = frozenset({"bpf_res_spin_lock", "bpf_res_spin_lock_irqsave"})
ORDERING: Final = frozenset({"bpf_rbtree_add", "bpf_rbtree_add_impl"})
"""Kernel functions whose callback runs under a lock.

Source: linux v6.18, kernel/bpf/verifier.c, is_rbtree_lock_required_kfunc()."""
UNLOCKING: Final = frozenset({"bpf_res_spin_unlock", "bpf_res_spin_unlock_irqrestore"})
_LOCK, _UNLOCK, _CALL, _CALLBACK = range(4)


def held(view: CodeView, blocks: Blocks, kfuncs: dict[int, str]) -> Mask:
    """Find where a lock may be held, on any path to it.

    A function holds one where a caller of it does. The callback of a helper
    holds none, since that helper cannot be called with one; the one that
    orders a tree is called with the tree's lock held.

    Args:
        view: the code.
        blocks: its blocks.
        kfuncs: names of kernel functions, by the slot of the call.

    Returns:
        (n,) whether, before each slot.
    """
    out = np.zeros(len(view), bool)
    takes, gives = _calls(view, kfuncs)
    if takes.size:
        orders = [slot for slot, name in kfuncs.items() if name in ORDERING]
        owners = view.subprog_of(np.array(orders, np.int32)).tolist()
        _Locks(view, blocks, takes, gives, set(owners)).spread(out)
    return out


def _calls(view: CodeView, kfuncs: dict[int, str]) -> tuple[Slots, Slots]:
    """Slots that take a lock, and those that give one back."""
    insns = view.insns
    found = []
    for helper, names in (("spin_lock", LOCKING), ("spin_unlock", UNLOCKING)):
        is_it = isa.is_helper_call(insns) & (insns["imm"] == isa.HELPER_IDS[helper])
        is_it[[slot for slot, name in kfuncs.items() if name in names]] = True
        found.append(np.flatnonzero(is_it).astype(np.int32))
    return found[0], found[1]


class _Locks:
    """The state of all functions, followed until nothing changes."""

    def __init__(
        self, view: CodeView, blocks: Blocks, takes: Slots, gives: Slots, orders: set[int]
    ) -> None:
        self._view = view
        self._blocks = blocks
        self._into = [False] * len(blocks)
        self._leaves = [False] * len(view.starts)
        self._events = self._find_events(takes, gives)
        owners = view.subprog_of(np.concatenate([takes, gives])).tolist()
        self._touches = set(owners)
        self._orders = orders
        self._entry = np.searchsorted(blocks.start, view.starts).tolist()

    def _find_events(self, takes: Slots, gives: Slots) -> list[list[tuple[int, int, int]]]:
        """By block: (slot, what, function that is called)."""
        view = self._view
        rows = [(slot, _LOCK, -1) for slot in takes.tolist()]
        rows += [(slot, _UNLOCK, -1) for slot in gives.tolist()]
        live = view.ref_is_entry & (view.ref_target != LOST)
        slots, goals = view.ref_slot[live], view.subprog_of(view.ref_target[live])
        is_call = isa.alone(isa.is_call, view.insns[slots])
        rows += [
            (slot, _CALL if calls else _CALLBACK, goal)
            for slot, calls, goal in zip(
                slots.tolist(), is_call.tolist(), goals.tolist(), strict=True
            )
        ]
        out: list[list[tuple[int, int, int]]] = [[] for _ in range(len(self._blocks))]
        for row in sorted(rows):
            block = int(np.searchsorted(self._blocks.start, row[0], side="right")) - 1
            out[block].append(row)
        return out

    def spread(self, out: Mask) -> None:
        """Follow all paths, and write down where a lock may be held."""
        while self._round(None):
            pass
        self._round(out)

    def _round(self, out: Mask | None) -> bool:
        """Go through all blocks once; whether anything is new."""
        before = (self._into.copy(), self._leaves.copy(), len(self._touches))
        blocks = self._blocks
        owner, falls, jump = blocks.subprog.tolist(), blocks.falls.tolist(), blocks.jump.tolist()
        bounds = [*blocks.start.tolist(), len(self._view)]
        for block in range(len(blocks)):
            state, at = self._into[block], bounds[block]
            for slot, what, goal in self._events[block]:
                if out is not None:
                    out[at : slot + 1] = state
                    at = slot + 1
                state = self._after(owner[block], what, goal, held_now=state)
            if out is not None:
                out[at : bounds[block + 1]] = state
            goals = [block + 1] if falls[block] and block + 1 < len(blocks) else []
            if jump[block] >= 0:
                goals.append(jump[block])
            if blocks.is_indirect[block]:
                goals += blocks.indirect.get(owner[block], ())
            for one in goals:
                self._into[one] |= state
            if not goals:
                self._leaves[owner[block]] |= state
        return before != (self._into, self._leaves, len(self._touches))

    def _after(self, owner: int, what: int, goal: int, *, held_now: bool) -> bool:
        """Whether a lock may be held after an event."""
        if what in (_LOCK, _UNLOCK):
            return what == _LOCK
        if goal in self._touches:
            self._touches.add(owner)
        first = self._entry[goal]
        if what == _CALLBACK:
            self._into[first] |= owner in self._orders
            return held_now
        self._into[first] |= held_now
        return self._leaves[goal] if goal in self._touches else held_now
