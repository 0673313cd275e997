"""Which bits of registers are known, and what an address may be of: a forward data flow.

A value is a triple of what is known to be 1, what is not known, and a mask of `ORIGIN_CTX` and
`ORIGIN_STACK`: what it may be the address of. A bit that is neither known to be 1 nor unknown is 0.

Source of the arithmetic: RFC 9669, section 4; of adding and subtracting numbers of which some bits
are known: Vishwanathan, Shachnai, Narayana and Nagarakatte, "Sound, Precise, and Fast Abstract
Interpretation with Tristate Numbers", CGO 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from bpfpatch.isa.semantics import (
    ADD,
    ALU,
    AND,
    ARSH,
    CLASS_MASK,
    DIV,
    END,
    JMP,
    LSH,
    MOD,
    MOV,
    MUL,
    NEG,
    OP_MASK,
    OR,
    RSH,
    SUB,
    U32,
    U64,
    XOR,
    compute,
)

ORIGIN_CTX: Final = 1
"""The address may be of the context."""
ORIGIN_STACK: Final = 2
"""The address may be of a stack frame."""

Bits = tuple[int, int]
"""(bits that are 1, bits that are not known), disjoint, of 64."""
Traced = tuple[int, int, int]
"""The same with a mask of what it may be the address of."""

UNKNOWN: Final[Bits] = (0, U64)
ANYTHING: Final[Traced] = (0, U64, ORIGIN_CTX | ORIGIN_STACK)

_EQ, _NE, _SET, _GT, _GE, _LT, _LE = 0x10, 0x50, 0x40, 0x20, 0x30, 0xA0, 0xB0
_CACHE: Final = 1 << 14


def joined(one: Traced, other: Traced) -> Traced:
    """What holds of a value that is either."""
    unknown = one[1] | other[1] | (one[0] ^ other[0])
    return one[0] & ~unknown, unknown, one[2] | other[2]


@lru_cache(_CACHE)
def alu_bits(code: int, slot_off: int, imm: int, left: Bits, right: Bits) -> Bits:  # noqa: PLR0911 - one way out for each kind
    """What is known of an arithmetic instruction's result.

    Args:
        code: of class ALU or ALU64.
        slot_off: its ``off``: 1 for signed division, 8, 16 or 32 for movsx.
        imm: its ``imm``: the width of a byte swap.
        left: of the destination before.
        right: of the source register, or the immediate, sign-extended.
    """
    operation = code & OP_MASK
    bits = 32 if code & CLASS_MASK == ALU else 64
    if operation == END:
        # Which way a machine swaps is not known here, but what it clears is.
        return (0, (1 << imm) - 1) if imm in (16, 32, 64) else UNKNOWN
    if operation == MOV:
        left = (0, 0)
    elif operation == NEG:
        right = (0, 0)
    if not left[1] and not right[1]:
        value = compute(code, slot_off, left[0], right[0], imm)
        return UNKNOWN if value is None else (value, 0)
    mask = (1 << bits) - 1
    left, right = (left[0] & mask, left[1] & mask), (right[0] & mask, right[1] & mask)
    if operation == MOV and slot_off in (8, 16, 32):
        return _extended(right, slot_off, mask)
    if slot_off:
        return 0, mask
    if operation in (LSH, RSH, ARSH):
        return _shifted(operation, left, right, bits)
    function = _FUNCTIONS.get(operation)
    if function is None:
        return 0, mask
    value, unknown = function(left, right)
    unknown &= mask
    return value & mask & ~unknown, unknown


def _extended(value: Bits, width: int, mask: int) -> Bits:
    sign = 1 << (width - 1)
    low = (1 << width) - 1
    ones, unknown = value[0] & low, value[1] & low
    if unknown & sign:
        return ones, (unknown | ~low) & mask
    return ((ones | ~low) & mask if ones & sign else ones), unknown


def _shifted(operation: int, left: Bits, right: Bits, bits: int) -> Bits:  # noqa: PLR0911 - one way out for each kind
    mask = (1 << bits) - 1
    ones, unknown = left
    if right[1] & (bits - 1):
        # By an unknown number: what is below all that may be set, or above, stays clear.
        most = ones | unknown
        if operation == RSH:
            return 0, (1 << most.bit_length()) - 1
        if operation == LSH and most:
            return 0, mask & ~((most & -most) - 1)
        return 0, mask if most else 0
    n = right[0] & (bits - 1)
    if operation == LSH:
        return ones << n & mask, unknown << n & mask
    if operation == RSH:
        return ones >> n, unknown >> n
    sign = 1 << (bits - 1)
    filled = mask & ~(mask >> n)
    if unknown & sign:
        return ones >> n, unknown >> n | filled
    return ones >> n | (filled if ones & sign else 0), unknown >> n


def _add(a: Bits, b: Bits) -> Bits:
    total, unknown = a[0] + b[0], a[1] + b[1]
    return total, (total + unknown) ^ total | a[1] | b[1]


def _sub(a: Bits, b: Bits) -> Bits:
    difference = a[0] - b[0]
    return difference, (difference + a[1]) ^ (difference - b[1]) | a[1] | b[1]


def _and(a: Bits, b: Bits) -> Bits:
    ones = a[0] & b[0]
    return ones, (a[0] | a[1]) & (b[0] | b[1]) & ~ones


def _or(a: Bits, b: Bits) -> Bits:
    ones = a[0] | b[0]
    return ones, (a[1] | b[1]) & ~ones


def _xor(a: Bits, b: Bits) -> Bits:
    return a[0] ^ b[0], a[1] | b[1]


def _mul(a: Bits, b: Bits) -> Bits:
    most = (a[0] | a[1]) * (b[0] | b[1])
    if not most:
        return 0, 0
    n_clear = sum(_lowest(value[0] | value[1]) for value in (a, b))
    return 0, ((1 << most.bit_length()) - 1) & ~((1 << n_clear) - 1)


def _lowest(value: int) -> int:
    return (value & -value).bit_length() - 1


def _div(a: Bits, b: Bits) -> Bits:
    most = (a[0] | a[1]) // max(b[0], 1)
    return 0, (1 << most.bit_length()) - 1


def _mod(a: Bits, b: Bits) -> Bits:
    most = a[0] | a[1]
    # Without a bit that is surely set the divisor may be 0, and the result the dividend.
    if b[0]:
        most = min(most, (b[0] | b[1]) - 1)
    return 0, (1 << most.bit_length()) - 1


_FUNCTIONS: Final[dict[int, Callable[[Bits, Bits], Bits]]] = {
    ADD: _add,
    SUB: _sub,
    MUL: _mul,
    DIV: _div,
    MOD: _mod,
    OR: _or,
    AND: _and,
    XOR: _xor,
    NEG: lambda a, b: _sub(b, a),
    MOV: lambda _, b: b,
}


def refined(code: int, left: Bits, right: int, *, is_taken: bool) -> Bits:
    """What is known of a register on one side of a comparison with a constant.

    Args:
        code: of a conditional jump.
        left: of the register before.
        right: the constant, of 64 bits.
        is_taken: on the side to which it jumps, or where it falls through.
    """
    mask = U64 if code & CLASS_MASK == JMP else U32
    right &= mask
    operation = code & OP_MASK
    if operation == (_EQ if is_taken else _NE):
        return left[0] & ~mask | right, left[1] & ~mask
    if operation == _SET and not is_taken:
        return left[0] & ~right, left[1] & ~right
    most = _most(operation, right, is_taken=is_taken)
    if most is None or most < 0:
        return left
    clear = mask & ~((1 << most.bit_length()) - 1)
    return left[0] & ~clear, left[1] & ~clear


def _most(operation: int, right: int, *, is_taken: bool) -> int | None:
    """The most that an unsigned number is that is compared so."""
    if operation == (_LT if is_taken else _GE):
        return right - 1
    if operation == (_LE if is_taken else _GT):
        return right
    return None
