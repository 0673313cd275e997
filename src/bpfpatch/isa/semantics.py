"""What an arithmetic instruction computes, on Python integers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final

U64: Final = (1 << 64) - 1
U32: Final = (1 << 32) - 1

ADD, SUB, MUL, DIV, OR, AND, LSH, RSH = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
NEG, MOD, XOR, MOV, ARSH, END = 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0

ALU, ALU64, JMP, JMP32 = 0x04, 0x07, 0x05, 0x06
CLASS_MASK, OP_MASK, SRC_X = 0x07, 0xF0, 0x08


_FUNCTIONS: Final[dict[int, Callable[[int, int], int]]] = {
    ADD: operator.add,
    SUB: operator.sub,
    MUL: operator.mul,
    OR: operator.or_,
    AND: operator.and_,
    XOR: operator.xor,
    NEG: lambda left, _: -left,
    MOV: lambda _, right: right,
}
_SHIFTS: Final[dict[int, Callable[[int, int], int]]] = {
    LSH: operator.lshift,
    RSH: operator.rshift,
    ARSH: operator.rshift,
}
_COMPARISONS: Final[dict[int, tuple[Callable[[int, int], bool], bool]]] = {
    # operation: (what must hold, whether of signed numbers)
    0x10: (operator.eq, False),
    0x20: (operator.gt, False),
    0x30: (operator.ge, False),
    0x40: (lambda a, b: a & b != 0, False),
    0x50: (operator.ne, False),
    0x60: (operator.gt, True),
    0x70: (operator.ge, True),
    0xA0: (operator.lt, False),
    0xB0: (operator.le, False),
    0xC0: (operator.lt, True),
    0xD0: (operator.le, True),
}


def signed(value: int, bits: int) -> int:
    """The two's-complement reading of the low ``bits`` of a value."""
    half = 1 << (bits - 1)
    return ((value & ((1 << bits) - 1)) ^ half) - half


def compute(code: int, slot_off: int, dst: int, operand: int, imm: int) -> int | None:
    """The new value of the destination register, or None where this function does not know.

    Args:
        code: opcode of class ALU or ALU64.
        slot_off: the ``off`` field: 1 for signed division, 8, 16 or 32 for movsx.
        dst: the destination's old value, unsigned 64 bits.
        operand: the source register's value, or the immediate sign-extended to 64 bits.
        imm: the ``imm`` field, which is a byte swap's width.

    Returns:
        The unsigned 64-bit result; ALU results are zero-extended.

    Source: RFC 9669 sections 4.1 and 4.2.
    """
    bits = 64 if code & CLASS_MASK == ALU64 else 32
    operation = code & OP_MASK
    if operation == END:
        return _swap(code, dst, imm)
    mask = (1 << bits) - 1
    left, right = dst & mask, operand & mask
    if operation == MOV and slot_off in (8, 16, 32):
        return signed(right, slot_off) & mask
    if operation in (DIV, MOD) and slot_off in (0, 1):
        return _divide(operation, left, right, bits, is_signed=slot_off == 1)
    if slot_off:
        return None  # an address-space cast, or newer than this function
    if operation in _SHIFTS:
        value = signed(left, bits) if operation == ARSH else left
        return _SHIFTS[operation](value, right & (bits - 1)) & mask
    function = _FUNCTIONS.get(operation)
    return None if function is None else function(left, right) & mask


def _divide(operation: int, left: int, right: int, bits: int, *, is_signed: bool) -> int:
    mask = (1 << bits) - 1
    if right == 0:
        return 0 if operation == DIV else left
    if not is_signed:
        return left // right if operation == DIV else left % right
    a, b = signed(left, bits), signed(right, bits)
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return (quotient if operation == DIV else a - b * quotient) & mask


def _swap(code: int, dst: int, width: int) -> int | None:
    """Byte swaps that do not depend on the machine: bswap only."""
    if width not in (16, 32, 64) or code & CLASS_MASK != ALU64:
        return None
    low = dst & ((1 << width) - 1)
    return int.from_bytes(low.to_bytes(width // 8, "little"), "big")


def holds(code: int, left: int, right: int) -> bool | None:
    """Whether a conditional jump of class JMP or JMP32 is taken, or None for no comparison.

    Source: RFC 9669 section 4.3.
    """
    bits = 64 if code & CLASS_MASK == JMP else 32
    mask = (1 << bits) - 1
    a, b = left & mask, right & mask
    found = _COMPARISONS.get(code & OP_MASK)
    if found is None:
        return None
    function, is_signed = found
    if is_signed:
        return function(signed(a, bits), signed(b, bits))
    return function(a, b)
