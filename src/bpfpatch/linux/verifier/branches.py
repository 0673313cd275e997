"""What a comparison of two scalars decides, and what each of its outcomes tells of them.

Source: linux v6.18, kernel/bpf/verifier.c, is_scalar_branch_taken(),
regs_refine_cond_op(); RFC 9669 section 4.3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from bpfpatch.isa import OPPOSITE_JUMPS
from bpfpatch.isa.semantics import JMP, U32, U64

from .scalars import FULL32, FULL64, Number, Parts, parts, sync

JEQ, JGT, JGE, JSET, JNE = 0x10, 0x20, 0x30, 0x40, 0x50
JSGT, JSGE, JLT, JLE, JSLT, JSLE = 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0
_JCLEAR: Final = 0x100
"""The opposite of JSET, which is not an operation of its own."""
_OPPOSITE: Final = {**OPPOSITE_JUMPS, JSET: _JCLEAR}
_MIRRORED: Final = {JGT: JLT, JGE: JLE, JSGT: JSLT, JSGE: JSLE}
_CACHE: Final = 1 << 15
_ANY_RANGE: Final = (*FULL64, *FULL32)


@lru_cache(_CACHE)
def decided(code: int, left: Number, right: Number) -> bool | None:
    """Whether a conditional jump is taken, or None where that depends.

    Args:
        code: opcode of class JMP or JMP32.
        left: the destination register, a scalar without id.
        right: the source register or the immediate, sign-extended.
    """
    operation = code & 0xF0
    a, b = parts(left), parts(right)
    is_64 = code & 7 == JMP
    mask = U64 if is_64 else U32
    unsigned, sign = (2, 4) if is_64 else (6, 8)
    if operation in (JEQ, JNE):
        equal = _equal(a, b, mask, unsigned, sign)
        return equal if equal is None or operation == JEQ else not equal
    if operation == JSET:
        return _any_common(a, b, mask)
    if operation in (JLT, JLE, JSLT, JSLE):
        operation = next(op for op, mirrored in _MIRRORED.items() if mirrored == operation)
        a, b = b, a
    at = unsigned if operation in (JGT, JGE) else sign
    least, most, least_b, most_b = a[at], a[at + 1], b[at], b[at + 1]
    if operation in (JGT, JSGT):
        return True if least > most_b else False if most <= least_b else None
    return True if least >= most_b else False if most < least_b else None


def _equal(a: Parts, b: Parts, mask: int, unsigned: int, sign: int) -> bool | None:
    if not (a[1] | b[1]) & mask:
        return (a[0] ^ b[0]) & mask == 0
    if (a[0] ^ b[0]) & ~(a[1] | b[1]) & mask:
        return False
    for at in {unsigned, sign, 6, 8}:  # 64 bits also differ where their lower halves do
        if a[at] > b[at + 1] or a[at + 1] < b[at]:
            return False
    return None


def _any_common(a: Parts, b: Parts, mask: int) -> bool | None:
    """JSET is only decided where one side is a constant."""
    if a[1] & mask:
        a, b = b, a
    if a[1] & mask:
        return None
    wanted = a[0] & mask
    if b[0] & wanted:
        return True
    return None if (b[0] | b[1]) & wanted else False


@lru_cache(_CACHE)
def refined(code: int, left: Number, right: Number, is_taken: bool) -> tuple[Number, Number]:
    """Both scalars, in the branch in which the jump is taken, or is not.

    Args:
        code: opcode of class JMP or JMP32; not decided.
        left: the destination register, without id.
        right: the source register or the immediate, sign-extended.
        is_taken: which branch.
    """
    operation = code & 0xF0
    if operation not in _OPPOSITE:
        return left, right
    if not is_taken:
        operation = _OPPOSITE[operation]
    a, b = list(parts(left)), list(parts(right))
    is_64 = code & 7 == JMP
    if operation == JEQ:
        _meet(a, b, is_64)
    elif operation == JNE:
        _exclude(a, b, is_64)
        _exclude(b, a, is_64)
    elif operation in (JSET, _JCLEAR):
        _bits(a, b, operation == JSET, is_64)
        _bits(b, a, operation == JSET, is_64)
    else:
        _order(a, b, operation, is_64)
    return sync(tuple(a)), sync(tuple(b))  # type: ignore[arg-type]  # ten of them


def _meet(a: list[int], b: list[int], is_64: bool) -> None:
    for at in (2, 4) if is_64 else (6, 8):
        a[at] = b[at] = max(a[at], b[at])
        a[at + 1] = b[at + 1] = min(a[at + 1], b[at + 1])
    mask = U64 if is_64 else U32
    unknown = a[1] & b[1] & mask
    bits = (a[0] | b[0]) & mask & ~unknown
    for one in (a, b):
        one[0], one[1] = (one[0] & ~mask) | bits, (one[1] & ~mask) | unknown


def _exclude(a: list[int], b: list[int], is_64: bool) -> None:
    """A constant at the end of a range is not in it."""
    if b[1] & (U64 if is_64 else U32):
        return
    for at in (2, 4) if is_64 else (6, 8):
        if a[at] == a[at + 1]:
            continue
        if a[at] == b[at]:
            a[at] += 1
        if a[at + 1] == b[at]:
            a[at + 1] -= 1


def _bits(a: list[int], b: list[int], is_set: bool, is_64: bool) -> None:
    mask = U64 if is_64 else U32
    if b[1] & mask:
        return
    wanted = b[0] & mask
    if not is_set:
        a[:] = a[0] & ~wanted, a[1] & ~wanted, *_ANY_RANGE  # the ranges are forgotten
    elif wanted and wanted & (wanted - 1) == 0:
        a[0], a[1] = a[0] | wanted, a[1] & ~wanted


def _order(a: list[int], b: list[int], operation: int, is_64: bool) -> None:
    if operation in _MIRRORED:
        operation = _MIRRORED[operation]
        a, b = b, a
    at = (2 if is_64 else 6) if operation in (JLT, JLE) else (4 if is_64 else 8)
    strict = operation in (JLT, JSLT)
    a[at + 1] = min(a[at + 1], b[at + 1] - strict)
    b[at] = max(b[at], a[at] + strict)
