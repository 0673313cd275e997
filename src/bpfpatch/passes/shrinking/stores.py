"""stores: store numbers that stand side by side at once."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa.semantics import ALU, ALU64, CLASS_MASK, U64, signed
from bpfpatch.patch import Body, PatchList

from ..base import Pass, register
from ..setting import Setting
from .code import Scope, ShrinkCode, run_rounds, scope_for

_ST, _STX, _MODE, _MEM, _SIZE_MASK = 2, 3, 0xE0, 0x60, 0x18
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_NAMES: Final = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
_MOV32, _MOV64 = 0xB4, 0xB7
_FP: Final = 10
_FRAME_BYTES: Final = 512


@register
@dataclass(frozen=True)
class Stores(Pass):
    """Store numbers that stand side by side at once.

    Within a block, numbers that go to neighbouring bytes become as few stores of constants as
    they can, aligned as far as their distance from the register tells. A number of 64 bits that
    only goes to the frame is stored in two halves, since that takes one slot less than to load
    it. What another instruction in between may read or write is not moved.

    With ``safe=true``, which is the default, only zeros in the frame are merged: of other numbers
    the verifier may know less then, and elsewhere it may want accesses of one size.

    Attributes:
        safe: whether to do only what takes nothing from any kernel's verifier.
    """

    name = "stores"
    knows_landing_pads = True
    safe: bool = True

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Look at each block once."""
        scope = scope_for(patches, setting, is_safe=self.safe)
        merge_stores(patches, scope, byteorder_of(setting))


def byteorder_of(setting: Setting) -> str:
    """In which order the bytes of a number are where the program runs."""
    if setting.edit is not None:
        return setting.edit.obj.byteorder
    return setting.target.arch.byteorder


def merge_stores(patches: PatchList, scope: Scope, byteorder: str = sys.byteorder) -> int:
    """Run the pass; gives how many edits it made."""
    return run_rounds(patches, scope, lambda code: _Looker(code, byteorder).look())


@dataclass(slots=True, eq=False)
class _Number:
    """A number in a register.

    Attributes:
        value: unsigned 64 bits.
        slot: of what put it there; -1 for a number that stands in a store.
        n_slots: how many that takes.
        uses: slots that read the register.
        is_over: whether nothing further can read it.
    """

    value: int
    slot: int = -1
    n_slots: int = 0
    uses: list[int] = field(default_factory=list)
    is_over: bool = False


@dataclass(slots=True, eq=False)
class _Store:
    """A store of a number: its slot, where it goes from the base, how many bytes, and what."""

    slot: int
    off: int
    size: int
    number: _Number


class _Looker:
    """One look at all blocks."""

    def __init__(self, code: ShrinkCode, byteorder: str) -> None:
        self.code, self.byteorder = code, byteorder
        insns = code.view.insns
        self.codes: list[int] = insns["code"].tolist()
        self.dsts: list[int] = isa.dst(insns).tolist()
        self.srcs: list[int] = isa.src(insns).tolist()
        self.offs: list[int] = insns["off"].tolist()
        self.imms: list[int] = insns["imm"].tolist()
        self.opaque: list[bool] = code.opaque.tolist()
        self.is_second: list[bool] = (code.view.node < 0).tolist()
        self.reads: list[int] = code.liveness.reads.tolist()
        self.writes: list[int] = code.liveness.writes.tolist()
        kind = insns["code"] & CLASS_MASK
        is_store = ((kind == _ST) | (kind == _STX)) & (insns["code"] & _MODE == _MEM)
        self.is_store: list[bool] = is_store.tolist()

    def look(self) -> int:
        """Merge what can be merged; gives how many edits that took."""
        n_edits = 0
        at = np.flatnonzero(np.array(self.is_store, bool) & self.code.may_change)
        owners = np.searchsorted(self.code.blocks.start, at, "right") - 1
        for block in np.unique(owners).tolist():
            run = _BlockRun(self, block)
            for base, stores in run.groups():
                n_here = self._replace(base, stores)
                if not n_here and len(stores) > 1:
                    n_here = sum(self._replace(base, [one]) for one in stores)
                n_edits += n_here
        return n_edits

    def _replace(self, base: int, stores: list[_Store]) -> int:
        """Put fewer stores in place of some to neighbouring bytes, if that is less code."""
        data: dict[int, int] = {}
        for one in stores:
            value = one.number.value & ((1 << 8 * one.size) - 1)
            raw = value.to_bytes(one.size, "little" if self.byteorder == "little" else "big")
            data.update({one.off + at: byte for at, byte in enumerate(raw)})
        new = self._cover(data)
        if base != _FP and not all(_is_in_one(one, new) for one in stores):
            return 0
        slots = {one.slot for one in stores}
        freed = {
            id(one.number): one.number
            for one in stores
            if one.number.is_over and slots.issuperset(one.number.uses) and one.number.slot >= 0
        }
        saved = len(stores) + sum(number.n_slots for number in freed.values()) - len(new)
        if saved <= 0:
            return 0
        patches, node = self.code.patches, self.code.view.node
        insns = [isa.store(_NAMES[size], base, off, value) for off, size, value in new]
        patches.insert_before(int(node[stores[-1].slot]), Body.of(*insns))
        gone = sorted(slots | {number.slot for number in freed.values()})
        patches.delete(node[np.array(gone, np.int32)])
        return len(gone)

    def _cover(self, data: dict[int, int]) -> list[tuple[int, int, int]]:
        """The fewest aligned stores that write these bytes: (offset, size, immediate)."""
        out: list[tuple[int, int, int]] = []
        todo = sorted(data)
        at = 0
        while at < len(todo):
            off = todo[at]
            for size in (8, 4, 2, 1):
                if off % size or not all(off + one in data for one in range(size)):
                    continue
                raw = bytes(data[off + one] for one in range(size))
                value = int.from_bytes(raw, "little" if self.byteorder == "little" else "big")
                number = signed(value, 8 * size)
                if -(1 << 31) <= number < 1 << 31:
                    out.append((off, size, number))
                    at += size
                    break
        return out


def _is_in_one(store: _Store, new: list[tuple[int, int, int]]) -> bool:
    """Whether what one store writes is still written at once."""
    return any(off <= store.off and store.off + store.size <= off + size for off, size, _ in new)


class _BlockRun:
    """The stores of numbers of one block, in groups that can be merged."""

    def __init__(self, looker: _Looker, block: int) -> None:
        self.looker, self.block = looker, block
        self.is_safe = looker.code.scope.is_safe
        subprog = int(looker.code.blocks.subprog[block])
        self.touches = looker.code.touches(subprog)
        self.numbers: dict[int, _Number] = {}
        self.all: list[_Number] = []
        self.open: dict[int, list[_Store]] = {}
        self.done: list[tuple[int, list[_Store]]] = []

    def groups(self) -> list[tuple[int, list[_Store]]]:
        """(base register, stores in order) of each run of neighbouring bytes."""
        looker = self.looker
        start, last = (
            int(looker.code.blocks.start[self.block]), int(looker.code.blocks.last[self.block]),
        )  # fmt: skip
        for slot in range(start, last + 1):
            if not looker.is_second[slot]:
                self._step(slot)
        live = int(looker.code.liveness.after[last])
        for one, number in self.numbers.items():
            number.is_over = not live >> one & 1
        for base in list(self.open):
            self._close(base)
        return [(base, part) for base, stores in self.done for part in _neighbours(stores)]

    def _step(self, slot: int) -> None:
        looker = self.looker
        store = self._store_at(slot)
        base = looker.dsts[slot]
        reads, writes = looker.reads[slot], looker.writes[slot]
        for one, number in self.numbers.items():
            if reads >> one & 1:
                number.uses.append(slot)
        if store is not None:
            self._make_way(base, store)
            self.open.setdefault(base, []).append(store)
        else:
            self._pass(slot)
        for one in [reg for reg in self.numbers if writes >> reg & 1]:
            self.numbers.pop(one).is_over = True
        for one in [reg for reg in self.open if writes >> reg & 1]:
            self._close(one)
        self._learn(slot)

    def _learn(self, slot: int) -> None:
        """Note the number that an instruction puts into its register."""
        looker = self.looker
        code, imm = looker.codes[slot], looker.imms[slot]
        if looker.opaque[slot]:
            return
        if code == isa.LD_IMM64 and not looker.srcs[slot]:
            value = (looker.imms[slot + 1] << 32 | imm & 0xFFFFFFFF) & U64
            self.numbers[looker.dsts[slot]] = _Number(value, slot, 2)
        elif code in (_MOV64, _MOV32):
            value = imm & (U64 if code == _MOV64 else U64 >> 32)
            self.numbers[looker.dsts[slot]] = _Number(value, slot, 1)

    def _store_at(self, slot: int) -> _Store | None:
        """A store of a number, if it may be moved."""
        looker = self.looker
        if not looker.is_store[slot] or looker.opaque[slot]:
            return None
        code, off = looker.codes[slot], looker.offs[slot]
        size = _SIZES[code & _SIZE_MASK]
        if code & CLASS_MASK == _ST:
            number = _Number(looker.imms[slot] & U64)
        elif looker.srcs[slot] in self.numbers and looker.srcs[slot] != looker.dsts[slot]:
            number = self.numbers[looker.srcs[slot]]
        else:
            return None
        is_frame = looker.dsts[slot] == _FP
        if is_frame and not -_FRAME_BYTES <= off <= -size:
            return None
        is_zero = not number.value & ((1 << 8 * size) - 1)
        if self.is_safe and not (is_frame and is_zero):
            return None
        # A number that no single immediate holds goes to memory that others see at once.
        if size == 8 and not is_frame and not -(1 << 31) <= signed(number.value, 64) < 1 << 31:
            return None
        return _Store(slot, off, size, number)

    def _make_way(self, base: int, store: _Store) -> None:
        """Close what a store may not come before.

        What others see at once is not written twice without them seeing it.
        """
        for other in [one for one in self.open if one != base]:
            here = [store.slot] if base != _FP else [one.slot for one in self.open[other]]
            is_apart = _FP in (other, base) and not any(one in self.touches for one in here)
            if not is_apart:
                self._close(other)
        end = store.off + store.size
        if base != _FP and any(
            one.off < end and store.off < one.off + one.size for one in self.open.get(base, ())
        ):
            self._close(base)

    def _pass(self, slot: int) -> None:
        """Go past an instruction: what it may touch cannot be delayed beyond it."""
        looker = self.looker
        code = looker.codes[slot]
        kind = code & CLASS_MASK
        touched = self.touches.get(slot)
        if _FP in self.open and touched is not None:
            bytes_open = _mask(self.open[_FP])
            if touched.touches & bytes_open or touched.holds:
                self._close(_FP)
        if kind in (ALU, ALU64) or code == isa.LD_IMM64:
            return
        for base in [one for one in self.open if one != _FP]:
            self._close(base)

    def _close(self, base: int) -> None:
        self.done.append((base, self.open.pop(base)))


def _mask(stores: list[_Store]) -> int:
    """The bytes of the frame that stores through R10 write, bit n for R10 - 512 + n."""
    out = 0
    for one in stores:
        out |= ((1 << one.size) - 1) << one.off + _FRAME_BYTES
    return out


def _neighbours(stores: list[_Store]) -> list[list[_Store]]:
    """Stores to bytes without a gap between them, in the order of the code."""
    out: list[list[_Store]] = []
    end: int | None = None
    for one in sorted(stores, key=lambda store: store.off):
        if end is not None and one.off <= end:
            out[-1].append(one)
        else:
            out.append([one])
            end = one.off
        end = max(end, one.off + one.size)
    for part in out:
        part.sort(key=lambda store: store.slot)
    return out
