"""Constants that a block's code shows, and the branches that they decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa.semantics import (
    ALU,
    ALU64,
    CLASS_MASK,
    JMP,
    JMP32,
    OP_MASK,
    SRC_X,
    U64,
    compute,
    holds,
    signed,
)
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask

from .blocks import Blocks


@dataclass(frozen=True, slots=True)
class Address:
    """An address in an object's data, before it is loaded.

    Attributes:
        section: the section's number.
        byte_off: bytes from its start; it may lie outside.
    """

    section: int
    byte_off: int


@dataclass(frozen=True, slots=True)
class Data:
    """Memory whose contents are known.

    Attributes:
        addresses: by slot of an ld_imm64 that a relocation fills in, what it loads.
        read: the number in so many bytes at an address, or None where it is not known.
    """

    addresses: Mapping[int, Address]
    read: Callable[[Address, int], int | None]


Value = int | Address

Known = dict[int, Value]
"""Registers that hold a constant: its unsigned 64 bits, or an address in known data."""

_MOV, _NEG, _END = 0xB0, 0x80, 0xD0
_ADD, _SUB = 0x00, 0x10
_LDX, _MODE_MASK, _SIZE_MASK = 0x01, 0xE0, 0x18
_MEM, _MEMSX = 0x60, 0x80
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
# Above the registers of `isa.writes`.
_OPAQUE: Final = 1 << 14
_SECOND: Final = 1 << 15

_NUMBER: Final = int(isa.Pseudo.NUMBER)


class Constants:
    """Runs blocks on what is known of the registers.

    Constants are followed through moves, arithmetic and 64-bit loads of a
    number; memory is looked at where there is ``data``. Without that, functions in
    which no branch compares anything are not looked at one instruction at a time.

    Args:
        view: the code.
        blocks: its blocks.
        opaque: (n,) slots whose immediate is not known before loading: a
            relocation or a CO-RE record fills it in.
        data: memory whose contents are known; None for none.

    Attributes:
        results: with ``data``, by slot of each load and arithmetic instruction that was run what
            it gave when it was run last, or None for what is not known.
        arguments: with ``data``, by slot of each call what is known of R1 to R5 there.
        kept: slots of loads of known data that a loader may change, and that give nothing so.
    """

    __slots__ = (
        "_behind",
        "_columns",
        "_data",
        "_flags",
        "_is_needed",
        "_makes",
        "_start",
        "arguments",
        "kept",
        "results",
    )

    def __init__(
        self, view: CodeView, blocks: Blocks, opaque: Mask, data: Data | None = None
    ) -> None:
        self._data = data
        self.results: dict[int, Value | None] = {}
        self.arguments: dict[int, Known] = {}
        self.kept: set[int] = set()
        flags = isa.writes(view.insns)
        flags[opaque] |= _OPAQUE
        flags[view.node < 0] |= _SECOND
        is_needed = np.ones(len(blocks), bool) if data is not None else _compares(view, blocks)
        insns = view.insns if is_needed.any() else view.insns[:0]
        self._columns: tuple[list[int], ...] = (
            insns["code"].tolist(),
            isa.dst(insns).tolist(),
            isa.src(insns).tolist(),
            insns["off"].tolist(),
            insns["imm"].tolist(),
        )
        self._flags: list[int] = flags[: len(insns)].tolist()
        self._is_needed: list[bool] = is_needed.tolist()
        self._makes: list[bool] = _makes_constants(view, blocks).tolist() if len(insns) else []
        self._start: list[int] = blocks.start.tolist()
        self._behind: list[int] = np.append(blocks.start[1:], len(view)).tolist()

    def run(self, block: int, known: Known) -> tuple[Known, bool | None]:
        """Run one block.

        Args:
            block: which.
            known: what is known on entry; left as it is.

        Returns:
            What is known at its end, and whether its last instruction, if that
            is a branch, is taken: None where that is not known.
        """
        if not self._is_needed[block]:
            return {}, None
        # What was found with more knowledge than there is now must not stand.
        if self._data is None and not (known or self._makes[block]):
            return {}, None
        known = known.copy()
        verdict = None
        codes, dsts, srcs, offs, imms = self._columns
        for slot in range(self._start[block], self._behind[block]):
            code, dst, flag = codes[slot], dsts[slot], self._flags[slot]
            if flag & _SECOND:
                continue
            src, imm = srcs[slot], imms[slot]
            kind = code & CLASS_MASK
            operand: Value | None = known.get(src) if code & SRC_X else imm & U64
            if kind in (ALU, ALU64):
                value = None
                if not flag & _OPAQUE:
                    value = _result(known.get(dst), operand, code, offs[slot], imm)
                self._put(known, slot, dst, value)
            elif code == isa.LD_IMM64:
                self._put(known, slot, dst, self._number(slot))
            elif _is_load(code):
                self._put(known, slot, dst, self._load(slot, known.get(src)))
            elif flag & ~_OPAQUE:
                if self._data is not None:
                    self.arguments[slot] = {r: known[r] for r in known if isa.ARGS >> r & 1}
                for register in [r for r in known if flag >> r & 1]:
                    del known[register]
            elif kind in (JMP, JMP32) and not flag & _OPAQUE:
                verdict = _decided(code, known.get(dst), operand)
        return known, verdict

    def _put(self, known: Known, slot: int, register: int, value: Value | None) -> None:
        if self._data is not None:
            self.results[slot] = value
        if value is None:
            known.pop(register, None)
        else:
            known[register] = value

    def _number(self, slot: int) -> Value | None:
        """What an ld_imm64 loads."""
        _, _, srcs, _, imms = self._columns
        if self._data is not None and slot in self._data.addresses:
            return self._data.addresses[slot]
        if srcs[slot] != _NUMBER or self._flags[slot] & _OPAQUE:
            return None
        return (imms[slot + 1] << 32 | imms[slot] & 0xFFFFFFFF) & U64

    def _load(self, slot: int, base: Value | None) -> int | None:
        """What a load gives from an address.

        Source: RFC 9669 sections 5.1 and 5.2.
        """
        codes, _, _, offs, _ = self._columns
        code = codes[slot]
        if not isinstance(base, Address) or self._data is None:
            return None
        size = _SIZES[code & _SIZE_MASK]
        value = self._data.read(Address(base.section, base.byte_off + offs[slot]), size)
        if value is not None and self._flags[slot] & _OPAQUE:
            self.kept.add(slot)
            return None
        if value is None or code & _MODE_MASK == _MEM:
            return value
        return signed(value, 8 * size) & U64


def _is_load(code: int) -> bool:
    """Whether it is a plain load from memory into a register."""
    return code & CLASS_MASK == _LDX and code & _MODE_MASK in (_MEM, _MEMSX)


def _decided(code: int, left: Value | None, right: Value | None) -> bool | None:
    return holds(code, left, right) if isinstance(left, int) and isinstance(right, int) else None


def _result(
    left: Value | None, operand: Value | None, code: int, slot_off: int, imm: int
) -> Value | None:
    """What an arithmetic instruction computes, or None where something of it is unknown."""
    operation = code & OP_MASK
    if operation == _MOV:
        left = 0
    elif operation in (_NEG, _END):
        operand = 0
    if left is None or operand is None:
        return None
    if isinstance(left, Address) or isinstance(operand, Address):
        return _moved(left, operand, code, slot_off)
    return compute(code, slot_off, left, operand, imm)


def _moved(left: Value, right: Value, code: int, slot_off: int) -> Address | None:
    """An address, moved or copied; None for all else that is done with one."""
    if code & CLASS_MASK != ALU64 or slot_off:
        return None
    operation = code & OP_MASK
    if operation == _MOV and isinstance(right, Address):
        return right
    if operation == _ADD and isinstance(left, int):
        left, right = right, left
    if operation not in (_ADD, _SUB) or not isinstance(left, Address) or not isinstance(right, int):
        return None
    distance = signed(right, 64)
    return Address(left.section, left.byte_off + (distance if operation == _ADD else -distance))


def _makes_constants(view: CodeView, blocks: Blocks) -> Mask:
    """(b,) blocks after which something may be known though nothing was before.

    Anything but a load or move of a constant needs a register that is known already.
    """
    code = view.insns["code"]
    kind = code & CLASS_MASK
    is_move = ((kind == ALU) | (kind == ALU64)) & (code & OP_MASK == _MOV) & (code & SRC_X == 0)
    return np.logical_or.reduceat(is_move | (code == isa.LD_IMM64), blocks.start)


def _compares(view: CodeView, blocks: Blocks) -> Mask:
    """(b,) blocks of functions in which a branch compares at all."""
    # Of the whole code: between instructions of other blocks an ld_imm64 would have no second half.
    is_branch = isa.is_cond_jump(view.insns) & ~isa.is_may_goto(view.insns)
    return np.isin(blocks.subprog, blocks.subprog[is_branch[blocks.last]])
