"""Arithmetic on numbers that are known in part.

What is computed here is as precise as the running kernel's verifier is, and not
more: a branch that it cannot decide stays in the program.

Source: linux v6.18.44, kernel/bpf/verifier.c, adjust_scalar_min_max_vals(),
scalar_byte_swap(); kernel/bpf/tnum.c.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from bpfpatch.isa.semantics import (
    ADD,
    ALU64,
    AND,
    ARSH,
    CLASS_MASK,
    DIV,
    END,
    LSH,
    MOD,
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

from .scalars import (
    FULL32,
    FULL64,
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    UNKNOWN,
    Number,
    Parts,
    as_s32,
    as_s64,
    parts,
    sync,
)

_CACHE: Final = 1 << 15
_TO_LITTLE: Final = 0xD4
# Whether constants give a constant is decided by what the verifier follows, not by what can
# be computed: division and modulo give an unknown number, whatever the operands.
_NOT_FOLLOWED: Final = frozenset({DIV, MOD})
_SHIFTS: Final = frozenset({LSH, RSH, ARSH})


@lru_cache(_CACHE)
def arithmetic(code: int, left: Number, right: Number) -> Number:  # noqa: PLR0911 - one way out for each kind
    """What an ALU or ALU64 instruction computes of two scalars without ids.

    Args:
        code: opcode; no move.
        left: the destination register.
        right: the source register, or the immediate, sign-extended; of a byte swap the width.
    """
    is_64 = code & CLASS_MASK == ALU64
    operation = code & OP_MASK
    if operation == END:
        return _swapped(left, right, is_swap=code != _TO_LITTLE)
    # That the upper half is zero after a 32-bit operation is not known of these either.
    if operation in _NOT_FOLLOWED:
        return UNKNOWN
    if operation in _SHIFTS and (not isinstance(right, int) or right >= (64 if is_64 else 32)):
        return UNKNOWN
    if operation == NEG:
        left, right, operation = 0, left, SUB
    if isinstance(left, int) and isinstance(right, int):
        result = compute((code & ~OP_MASK) | operation, 0, left, right, 0)
        return UNKNOWN if result is None else result
    a, b = parts(left), parts(right)
    if operation in _SHIFTS:
        assert isinstance(right, int)
        out = _SHIFT[operation](a, right, is_64)
    elif operation in _TABLE:
        out = _TABLE[operation](a, b)
    else:
        return UNKNOWN
    if is_64:
        return sync(out)
    t, m, _, _, _, _, ul, uh, sl, sh = out
    smin, smax = (sl, sh) if sl >= 0 else (0, U32)
    return sync((t & U32, m & U32, ul, uh, smin, smax, ul, uh, sl, sh))


def _swapped(value: Number, bits: Number, *, is_swap: bool) -> Number:
    """A byte swap, or the conversion to little-endian: on a little-endian machine, a cut."""
    if not isinstance(bits, int) or bits not in (16, 32, 64):
        return UNKNOWN
    known = [part & ((1 << bits) - 1) for part in parts(value)[:2]]
    if is_swap:
        known = [int.from_bytes(part.to_bytes(bits // 8, "little"), "big") for part in known]
    return sync((known[0], known[1], *FULL64, *FULL32))


def _wrapped(low: int, high: int, mask: int) -> tuple[int, int]:
    """An unsigned range after it may have wrapped: kept if both ends did, or none."""
    is_kept = high < 0 if low < 0 else (low > mask) == (high > mask)
    return (low & mask, high & mask) if is_kept else (0, mask)


def _within(low: int, high: int, least: int, most: int) -> tuple[int, int]:
    return (low, high) if low >= least and high <= most else (least, most)


def _add(a: Parts, b: Parts) -> Parts:
    ranges = (
        *_wrapped(a[2] + b[2], a[3] + b[3], U64),
        *_within(a[4] + b[4], a[5] + b[5], S64_MIN, S64_MAX),
        *_wrapped(a[6] + b[6], a[7] + b[7], U32),
        *_within(a[8] + b[8], a[9] + b[9], S32_MIN, S32_MAX),
    )
    base = (a[0] + b[0]) & U64
    unknown = ((base + a[1] + b[1]) ^ base) & U64 | a[1] | b[1]
    return base & ~unknown, unknown, *ranges


def _sub(a: Parts, b: Parts) -> Parts:
    ranges = (
        *_wrapped(a[2] - b[3], a[3] - b[2], U64),
        *_within(a[4] - b[5], a[5] - b[4], S64_MIN, S64_MAX),
        *_wrapped(a[6] - b[7], a[7] - b[6], U32),
        *_within(a[8] - b[9], a[9] - b[8], S32_MIN, S32_MAX),
    )
    base = (a[0] - b[0]) & U64
    unknown = ((base + a[1]) ^ (base - b[1])) & U64 | a[1] | b[1]
    return base & ~unknown, unknown, *ranges


def _tnum_mul(a: Parts, b: Parts) -> tuple[int, int]:
    value = a[0] * b[0] & U64
    total, unknown = 0, 0
    at, am, bt, bm = a[0], a[1], b[0], b[1]
    while at or am:
        if at & 1:
            total, unknown = _tnum_add(total, unknown, 0, bm)
        elif am & 1:
            total, unknown = _tnum_add(total, unknown, 0, bt | bm)
        at, am = at >> 1, am >> 1
        bt, bm = bt << 1 & U64, bm << 1 & U64
    return _tnum_add(value, 0, total, unknown)


def _tnum_add(t: int, m: int, t2: int, m2: int) -> tuple[int, int]:
    base = (t + t2) & U64
    unknown = ((base + m + m2) ^ base) & U64 | m | m2
    return base & ~unknown, unknown


def _mul(a: Parts, b: Parts) -> Parts:
    whole = [x * y for x in a[4:6] for y in b[4:6]]
    low = [x * y for x in a[8:10] for y in b[8:10]]
    return (
        *_tnum_mul(a, b),
        *((a[2] * b[2], a[3] * b[3]) if a[3] * b[3] <= U64 else (0, U64)),
        *_within(min(whole), max(whole), S64_MIN, S64_MAX),
        *((a[6] * b[6], a[7] * b[7]) if a[7] * b[7] <= U32 else (0, U32)),
        *_within(min(low), max(low), S32_MIN, S32_MAX),
    )


def _bitwise(t: int, m: int, low: tuple[int, int], whole: tuple[int, int]) -> Parts:
    """Signed ranges of what a bit operation gives follow from the unsigned ones."""
    (ul, uh), (umin, umax) = low, whole
    half = (as_s32(ul), as_s32(uh)) if as_s32(ul) <= as_s32(uh) else (S32_MIN, S32_MAX)
    full = (as_s64(umin), as_s64(umax)) if as_s64(umin) <= as_s64(umax) else (S64_MIN, S64_MAX)
    return t, m, umin, umax, *full, ul, uh, *half


def _and(a: Parts, b: Parts) -> Parts:
    t = a[0] & b[0]
    m = ((a[0] | a[1]) & (b[0] | b[1])) & ~t
    return _bitwise(t, m, (t & U32, min(a[7], b[7])), (t, min(a[3], b[3])))


def _or(a: Parts, b: Parts) -> Parts:
    t = a[0] | b[0]
    m = (a[1] | b[1]) & ~t
    return _bitwise(t, m, (max(a[6], b[6]), (t | m) & U32), (max(a[2], b[2]), t | m))


def _xor(a: Parts, b: Parts) -> Parts:
    m = a[1] | b[1]
    t = (a[0] ^ b[0]) & ~m
    return _bitwise(t, m, (t & U32, (t | m) & U32), (t, t | m))


def _lsh(a: Parts, by: int, is_64: bool) -> Parts:
    t, m, umin, umax, _, _, ul, uh, sl, sh = a
    low: tuple[int, int] = (0, U32)
    if by < 32 and uh <= 1 << (31 - by):
        low = (ul << by, uh << by)
    if not is_64:
        t, m = t & U32, m & U32
    whole: tuple[int, int] = (0, U64)
    if umax <= 1 << (63 - by):
        whole = (umin << by, umax << by)
    # A 32-bit number that is sign-extended by two shifts keeps its range.
    full = (sl << 32, sh << 32) if is_64 and by == 32 else (S64_MIN, S64_MAX)
    return t << by & U64, m << by & U64, *whole, *full, *low, S32_MIN, S32_MAX


def _rsh(a: Parts, by: int, is_64: bool) -> Parts:
    t, m, umin, umax, _, _, ul, uh, _, _ = a
    if is_64:
        return t >> by, m >> by, umin >> by, umax >> by, S64_MIN, S64_MAX, *FULL32
    t, m = (t & U32) >> by, (m & U32) >> by
    return t, m, 0, U64, S64_MIN, S64_MAX, ul >> by, uh >> by, S32_MIN, S32_MAX


def _arsh(a: Parts, by: int, is_64: bool) -> Parts:
    t, m, _, _, smin, smax, _, _, sl, sh = a
    if is_64:
        bits = as_s64(t) >> by & U64, as_s64(m) >> by & U64
        return *bits, 0, U64, smin >> by, smax >> by, *FULL32
    bits = as_s32(t) >> by & U32, as_s32(m) >> by & U32
    return *bits, *FULL64, 0, U32, sl >> by, sh >> by


_TABLE: Final = {ADD: _add, SUB: _sub, MUL: _mul, AND: _and, OR: _or, XOR: _xor}
_SHIFT: Final = {LSH: _lsh, RSH: _rsh, ARSH: _arsh}
