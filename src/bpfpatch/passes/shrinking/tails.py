"""Merge ends of paths that are the same instructions and go on at the same place."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Anchor
from bpfpatch.program.types import LOST

from ..scratch import fastcall_sequences
from .code import NEAR, Scope, ShrinkCode, run_rounds

_LONGEST: Final = 64
"""Instructions of a tail that are compared."""
_EXIT: Final = -1

Key = tuple[object, ...]


def merge_tails(patches: PatchList, scope: Scope) -> int:
    """Merge equal ends; gives how many instructions went.

    Programs with columns stay as they are: what those say of one of two equal instructions need
    not hold for the other.
    """
    if patches.program.columns:
        return 0
    return run_rounds(patches, scope, lambda code: _Tails(code).merge())


class _Tail:
    """The end of a block that goes on at one place only.

    Attributes:
        slots: its instructions, the last one first; an exit is one of them, a `goto` is not.
        keys: what each does, as a number.
        jump: the slot of its `goto`, or LOST.
        is_whole: whether the tail, if it is all of ``slots``, is all of its block.
    """

    __slots__ = ("is_whole", "jump", "keys", "slots")

    def __init__(self, slots: list[int], keys: list[int], jump: int, *, is_whole: bool) -> None:
        self.slots, self.keys, self.jump, self.is_whole = slots, keys, jump, is_whole


class _Tails:
    """All ends of paths of some code."""

    def __init__(self, code: ShrinkCode) -> None:
        self.code = code
        view = code.view
        self.words: list[int] = isa.words(view.insns).tolist()
        self.refs: dict[int, int] = dict(
            zip(view.ref_slot.tolist(), view.ref_target.tolist(), strict=True)
        )
        self.rows = _own_rows(code)
        self.kinds = _kinds(code)
        self.numbers: dict[Key, int] = {}
        slots = np.flatnonzero(view.node >= 0).astype(np.int32)
        self.apart: set[int] = set()
        for begin, end in fastcall_sequences(view.insns, slots):
            self.apart |= set(range(begin, end + 1))

    def merge(self) -> int:
        """Merge what is worth it, once; gives how many instructions went."""
        stays: set[int] = set()
        goes: set[int] = set()
        n_gone = 0
        for n_equal, one, other in self._pairs():
            # Whoever falls into the place where both go on needs a `goto` to go elsewhere.
            kept, left = (one, other) if one.jump == LOST else (other, one)
            if not _may(kept, left, stays, goes):
                kept, left = left, kept
            n_saved = _saved(left, n_equal)
            is_worth_it = n_saved >= (1 if left.jump != LOST else 2)
            is_worth_it &= abs(left.slots[0] - kept.slots[0]) < NEAR
            if not is_worth_it or not _may(kept, left, stays, goes):
                continue
            stays.add(id(kept))
            goes.add(id(left))
            self._leave(left, kept, n_equal)
            n_gone += n_saved
        return n_gone

    def _leave(self, left: _Tail, kept: _Tail, n_equal: int) -> None:
        """Let a path end where another one does."""
        patches, node = self.code.patches, self.code.view.node
        sites = node[sorted(left.slots[:n_equal])]
        goal = int(node[kept.slots[n_equal - 1]])
        patches.insert_before(int(sites[0]), Body(isa.ja(0), labels={0: goal}))
        patches.delete(sites)
        if left.jump != LOST:
            patches.delete(int(node[left.jump]))

    def _pairs(self) -> list[tuple[int, _Tail, _Tail]]:
        """Ends with so many equal instructions, those with the most first."""
        groups: dict[tuple[int, int], list[_Tail]] = {}
        blocks, may = self.code.blocks, self.code.may_change
        for block in np.flatnonzero(may[blocks.start]).tolist():
            goal, jump = self._goal(block)
            tail = None if goal is None else self._tail(block, jump)
            if tail is not None and tail.slots and goal is not None:
                groups.setdefault((int(blocks.subprog[block]), goal), []).append(tail)
        pairs: list[tuple[int, _Tail, _Tail]] = []
        for tails in groups.values():
            # Side by side in this order are those that have the most in common.
            tails.sort(key=lambda tail: tail.keys)
            for one, other in pairwise(tails):
                n_equal = self._n_equal(one, other)
                if n_equal:
                    pairs.append((n_equal, one, other))
        pairs.sort(key=lambda pair: (-pair[0], pair[1].slots[0]))
        return pairs

    def _goal(self, block: int) -> tuple[int | None, int]:
        """Where a block always goes on, and the slot of its `goto` there."""
        blocks, view = self.code.blocks, self.code.view
        last = int(blocks.last[block])
        insn = view.insns[last : last + 1]
        if isa.is_exit(insn)[0]:
            return _EXIT, LOST
        if bool(blocks.is_indirect[block]):
            return None, LOST
        jump = int(blocks.jump[block])
        if isa.is_uncond_jump(insn)[0]:
            return (None, LOST) if jump == LOST else (int(blocks.start[jump]), last)
        if jump != LOST or not blocks.falls[block] or block + 1 >= len(blocks):
            return None, LOST
        if blocks.subprog[block + 1] != blocks.subprog[block]:
            return None, LOST
        return int(blocks.start[block + 1]), LOST

    def _tail(self, block: int, jump: int) -> _Tail:
        blocks, view = self.code.blocks, self.code.view
        start = int(blocks.start[block])
        slots: list[int] = []
        keys: list[int] = []
        slot = int(blocks.last[block]) if jump == LOST else jump - 1
        is_whole = True
        while slot >= start:
            if view.node[slot] < 0:
                slot -= 1
            key = self._key(slot)
            if key is None or len(slots) == _LONGEST:
                is_whole = False
                break
            slots.append(slot)
            keys.append(self.numbers.setdefault(key, len(self.numbers)))
            slot -= 1
        return _Tail(slots, keys, jump, is_whole=is_whole)

    def _key(self, slot: int) -> Key | None:
        """What an instruction does, whatever its place; None for what stays where it is."""
        if self.kinds[slot] == 0 or (self.code.scope.is_safe and self.kinds[slot] != 1):
            return None
        key: Key = (self.words[slot], self.rows.get(slot))
        if slot in self.refs:
            if self.refs[slot] == LOST:
                return None
            key = (self.words[slot] & 0xFFFFFFFF, self.refs[slot], "refers", self.rows.get(slot))
        elif self.code.opaque[slot] and slot not in self.rows:
            return None
        if self.words[slot] & 0xFF == isa.LD_IMM64:
            key = (*key, 0 if slot in self.refs else self.words[slot + 1])
        return key

    def _n_equal(self, one: _Tail, other: _Tail) -> int:
        count = 0
        for mine, yours in zip(one.keys, other.keys, strict=False):
            if mine != yours:
                break
            count += 1
        # A jump into a sequence that the kernel knows would break it.
        while count and (
            one.slots[count - 1] in self.apart or other.slots[count - 1] in self.apart
        ):
            count -= 1
        return count


def _may(kept: _Tail, left: _Tail, stays: set[int], goes: set[int]) -> bool:
    return id(kept) not in goes and id(left) not in goes and id(left) not in stays


def _saved(left: _Tail, n_equal: int) -> int:
    """How many instructions fewer there are, if a tail is left to another one."""
    is_block = left.is_whole and n_equal == len(left.slots)
    return n_equal - (left.jump == LOST) + is_block


def _kinds(code: ShrinkCode) -> list[int]:
    """By slot 1 for arithmetic, moves of numbers and exits; 2 for what touches more; 0 for none."""
    insns = code.view.insns
    out = np.full(len(insns), 2, np.int8)
    out[isa.is_alu(insns) | isa.is_exit(insns)] = 1
    out[isa.is_ld_imm64(insns) & (isa.src(insns) == 0) & ~code.opaque] = 1
    out[isa.is_jump(insns) | (code.view.node < 0)] = 0
    attached = code.patches.attached()
    if attached.size:
        out[np.isin(code.view.node, attached)] = 0
    found: list[int] = out.tolist()
    return found


def _own_rows(code: ShrinkCode) -> dict[int, tuple[tuple[str, bytes], ...]]:
    """By slot the rows that a loader goes by, such as relocations."""
    program, view = code.patches.program, code.view
    is_mine = (view.node >= 0) & (view.node < view.n_original)
    slot_of = dict(zip(view.node[is_mine].tolist(), np.flatnonzero(is_mine).tolist(), strict=True))
    found: dict[int, list[tuple[str, bytes]]] = {}
    for name, table in program.tables.items():
        if table.anchor is not Anchor.OWN:
            continue
        for node, row in zip(table.insn.tolist(), table.rows, strict=True):
            if node in slot_of:
                found.setdefault(slot_of[node], []).append((name, row.tobytes()))
    return {slot: tuple(sorted(rows)) for slot, rows in found.items()}
