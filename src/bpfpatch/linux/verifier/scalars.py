"""Numbers that are known in part: the domain in which the verifier follows scalars.

A value is an int, where it is one constant (unsigned 64 bits), or a tuple: what
is known of its bits, and its range as four kinds of number::

    (SCALAR, id, delta, bits, unknown, umin, umax, smin, smax, ul, uh, sl, sh)

``bits`` and ``unknown`` are a "tnum": bits that are known to be 1, and bits that
are not known. The last four are the range of the lower half. Registers with the
same ``id`` that is not 0 are a number and its copies, to which constants were
added: ``delta`` is 0, or the constant times 4, plus 1 or 2 for the width.

What is computed here is as precise as the running kernel's verifier is, and not
more: a branch that it cannot decide stays in the program.

Source: linux v6.18, kernel/bpf/verifier.c, adjust_scalar_min_max_vals(),
reg_bounds_sync(); kernel/bpf/tnum.c.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bpfpatch.isa.semantics import U32, U64, signed

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Scalar: TypeAlias = tuple[Literal[0], int, int, int, int, int, int, int, int, int, int, int, int]
"""A number that is known in part, see above."""
Number: TypeAlias = int | Scalar
PointerKind: TypeAlias = Literal[
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 100, 101
]
"""`bpfpatch.facts.columns.MemType`, `values.FUNC` or `values.PACKET_END`."""
Pointer: TypeAlias = tuple[PointerKind, int, int, int, int, bool, int, int]
"""A pointer, see `values`."""
Partial: TypeAlias = tuple[Literal[-1], Number | None, int, int]
"""A stack slot that holds less than 8 bytes of a value, see `state`."""
Value: TypeAlias = int | Scalar | Pointer | None
"""What a register holds; None for what is not known at all."""
Stored: TypeAlias = Value | Partial
"""What a stack slot holds."""

SCALAR: Final = 0
S64_MIN, S64_MAX, S32_MIN, S32_MAX = -(1 << 63), (1 << 63) - 1, -(1 << 31), (1 << 31) - 1
_HIGH: Final = U64 ^ U32
FULL64: Final = (0, U64, S64_MIN, S64_MAX)
FULL32: Final = (0, U32, S32_MIN, S32_MAX)
UNKNOWN: Final[Scalar] = (SCALAR, 0, 0, 0, U64, *FULL64, *FULL32)
_CACHE: Final = 1 << 15

Parts = tuple[int, int, int, int, int, int, int, int, int, int]
"""A scalar's tuple from ``bits`` on."""


def as_s64(value: int) -> int:
    """64 bits as a signed number."""
    return value - (1 << 64) if value > S64_MAX else value


def as_s32(value: int) -> int:
    """The lower 32 bits as a signed number."""
    value &= U32
    return value - (1 << 32) if value > S32_MAX else value


def parts(value: Number) -> Parts:
    """A scalar from its bits on, for a constant as well."""
    if not isinstance(value, int):
        return value[3:]
    low, sval = value & U32, as_s64(value)
    slow = as_s32(low)
    return value, 0, value, value, sval, sval, low, low, slow, slow


# Where a range is narrowed below, it is compared in place: min() and max() take as long as all
# the rest, and each new number of a program goes through here.


def _from_tnum(known: Parts) -> Parts:
    """Narrow the ranges to what the bits allow."""
    t, m, umin, umax, smin, smax, ul, uh, sl, sh = known
    if m == U64:  # and so no bit is known
        return known
    low, high = t & U32, (t | m) & U32
    ul, uh = low if low > ul else ul, high if high < uh else uh
    low, high = as_s32(t | (m & 0x80000000)), as_s32(t | (m & S32_MAX))
    sl, sh = low if low > sl else sl, high if high < sh else sh
    low, high = t, t | m
    umin, umax = low if low > umin else umin, high if high < umax else umax
    low, high = as_s64(t | (m & (1 << 63))), as_s64(t | (m & S64_MAX))
    smin, smax = low if low > smin else smin, high if high < smax else smax
    return t, m, umin, umax, smin, smax, ul, uh, sl, sh


def _deduce_low(known: Parts) -> Parts:
    """Narrow the lower half's range by the whole's, and its two kinds by each other."""
    t, m, umin, umax, smin, smax, ul, uh, sl, sh = known
    for low, high in ((umin, umax), (smin, smax)):
        steps = (high >> 32) - (low >> 32)
        if steps not in (0, 1):
            continue
        a, b = low & U32, high & U32
        sa, sb = as_s32(a), as_s32(b)
        if steps == 0 and a <= b:
            ul, uh = a if a > ul else ul, b if b < uh else uh
        if (sa <= sb) if steps == 0 else (sa < 0 <= sb):
            sl, sh = sa if sa > sl else sl, sb if sb < sh else sh
    sa, sb = as_s32(ul), as_s32(uh)
    if sa <= sb:
        sl, sh = sa if sa > sl else sl, sb if sb < sh else sh
    a, b = sl & U32, sh & U32
    if a <= b:
        ul, uh = a if a > ul else ul, b if b < uh else uh
    elif uh < a:
        sl, uh = 0, b if b < uh else uh
    elif b < ul:
        sh, ul = -1, a if a > ul else ul
    return t, m, umin, umax, smin, smax, ul, uh, sl, sh


def _deduce_whole(known: Parts) -> Parts:
    """Narrow signed and unsigned ranges by each other, and both by the lower half's."""
    t, m, umin, umax, smin, smax, ul, uh, sl, sh = known
    low, high = as_s64(umin), as_s64(umax)
    if low <= high:
        smin, smax = low if low > smin else smin, high if high < smax else smax
    low, high = smin & U64, smax & U64
    if low <= high:
        umin, umax = low if low > umin else umin, high if high < umax else umax
    elif umax < low:
        smin, umax = 0, smax if smax < umax else umax
    elif high < umin:
        smax, umin = -1, low if low > umin else umin
    low, high = (umin & _HIGH) | ul, (umax & _HIGH) | uh
    umin, umax = low if low > umin else umin, high if high < umax else umax
    low, high = (smin & ~U32) | ul, (smax & ~U32) | uh
    smin, smax = low if low > smin else smin, high if high < smax else smax
    if sl >= 0 and smin >= S32_MIN and smax <= S32_MAX:
        smin = umin = sl
        smax = umax = sh
        t, m = _meet(t, m, *_tnum_range(umin, umax))
    return t, m, umin, umax, smin, smax, ul, uh, sl, sh


def _tnum_range(low: int, high: int) -> tuple[int, int]:
    """The bits that all numbers of a range share."""
    if low > high:
        return 0, U64
    unknown = (1 << (low ^ high).bit_length()) - 1
    return low & ~unknown, unknown


def _meet(t: int, m: int, t2: int, m2: int) -> tuple[int, int]:
    both = m & m2
    return (t | t2) & ~both, both


def sync(known: Parts) -> Number:
    """A scalar of which all parts say what each of them knows.

    Contradictory parts, which code that never runs can have, know nothing.
    """
    known = _from_tnum(known)
    for _ in range(3):
        before = known
        known = _deduce_whole(_deduce_low(known))
        if known == before:  # and so it would remain
            break
    t, m, umin, umax, smin, smax, ul, uh, sl, sh = known
    if umin > umax or smin > smax or ul > uh or sl > sh:
        return UNKNOWN
    t, m = _meet(t, m, *_tnum_range(umin, umax))
    low, low_m = _meet(t & U32, m & U32, *_tnum_range(ul, uh))
    t, m = (t & _HIGH) | (low & U32), (m & _HIGH) | (low_m & U32)
    if m == 0:
        return t
    known = _from_tnum((t, m, umin, umax, smin, smax, ul, uh, sl, sh))
    return (SCALAR, 0, 0, *known)


def in_range(umin: int, umax: int) -> Number:
    """A scalar of which its unsigned range is known."""
    return sync((0, U64, umin, umax, S64_MIN, S64_MAX, *FULL32))


def in_signed_range(smin: int, smax: int) -> Number:
    """A scalar of which its signed range is known."""
    return sync((0, U64, 0, U64, smin, smax, *FULL32))


LOADED: Final = {size: in_range(0, (1 << 8 * size) - 1) for size in (1, 2, 4)} | {8: UNKNOWN}
"""What a load of so many bytes gives."""
LOADED_SIGNED: Final = {
    size: in_signed_range(-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) for size in (1, 2, 4)
} | {8: UNKNOWN}
"""What a sign-extending load of so many bytes gives."""


def is_scalar(value: Stored) -> TypeIs[Number]:
    """Whether it is a number, constant or not."""
    return type(value) is int or (type(value) is tuple and value[0] == SCALAR)


def without_id(value: Number) -> Number:
    """The same number, linked to no other."""
    if isinstance(value, int) or not value[1]:
        return value
    return (SCALAR, 0, 0, *value[3:])


def fits_u32(value: Number) -> bool:
    """Whether its upper half is zero."""
    return bool(value <= U32 if isinstance(value, int) else value[6] <= U32)


@lru_cache(_CACHE)
def low_half(value: Number) -> Number:
    """The zero-extended lower half."""
    if isinstance(value, int):
        return value & U32
    t, m, _, _, _, _, ul, uh, sl, sh = parts(value)
    smin, smax = (sl, sh) if sl >= 0 else (0, U32)
    return sync((t & U32, m & U32, ul, uh, smin, smax, ul, uh, sl, sh))


def with_low_half(known: Parts, low: int) -> Number:
    """A number of which the lower half is a constant."""
    t, m, umin, umax, smin, smax, *_ = known
    slow = as_s32(low)
    return sync((t & _HIGH | low, m & _HIGH, umin, umax, smin, smax, low, low, slow, slow))


@lru_cache(_CACHE)
def truncated(value: Number, size: int) -> Number:
    """The zero-extended lower ``size`` bytes."""
    if isinstance(value, int):
        return value & ((1 << 8 * size) - 1)
    if size == 4:
        return low_half(value)
    if size == 8:
        return value
    mask = (1 << 8 * size) - 1
    t, m, umin, umax, *_ = parts(value)
    low, high = (umin & mask, umax & mask) if umin & ~mask == umax & ~mask else (0, mask)
    return sync((t & mask, m & mask, low, high, S64_MIN, S64_MAX, *FULL32))


@lru_cache(_CACHE)
def sign_extended(value: Number, size: int, is_64: bool) -> Number:
    """The lower ``size`` bytes, sign-extended to 64 bits, or to 32 and then zero-extended."""
    bits = 8 * size
    if isinstance(value, int):
        return signed(value, bits) & (U64 if is_64 else U32)
    _, _, _, _, smin, smax, _, _, sl, sh = parts(value)
    low, high = (smin, smax) if is_64 else (sl, sh)
    top_low, top_high = low >> bits, high >> bits
    a, b = signed(low, bits), signed(high, bits)
    if top_low == top_high and (a >= 0) == (b >= 0):
        low, high = min(a, b), max(a, b)
    else:
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
    out = in_signed_range(low, high)
    return out if is_64 else low_half(out)


@lru_cache(_CACHE)
def union(left: Number, right: Number) -> Number:
    """The least scalar that both are of; without id."""
    a, b = parts(left), parts(right)
    m = a[1] | b[1] | (a[0] ^ b[0])
    lows = (min(a[i], b[i]) for i in (2, 4, 6, 8))
    highs = (max(a[i], b[i]) for i in (3, 5, 7, 9))
    ranges = [end for pair in zip(lows, highs, strict=True) for end in pair]
    return sync((a[0] & ~m, m, *ranges))  # type: ignore[arg-type]  # eight of them


_STEPS: Final = (0xFF, 0xFFFF, S32_MAX, U32, S64_MAX)


@lru_cache(_CACHE)
def widened(value: Number) -> Number:
    """A scalar of a few that there are: what grows in a loop ends soon."""
    umax = value if isinstance(value, int) else value[6]
    for step in _STEPS:
        if umax <= step:
            return in_range(0, step)
    return UNKNOWN


def covers(wide: Number, narrow: Number) -> bool:
    """Whether each number of the second is one of the first, whatever they are linked to."""
    if isinstance(wide, int):
        return bool(isinstance(narrow, int) and wide == narrow)
    if isinstance(narrow, int):
        if not wide[5] <= narrow <= wide[6]:  # what differs most often
            return False
        t, m, a, b, c, d, e, f, g, h = parts(narrow)
    else:
        _, _, _, t, m, a, b, c, d, e, f, g, h = narrow
    _, _, _, bits, unknown, umin, umax, smin, smax, ul, uh, sl, sh = wide
    return bool(
        umin <= a and umax >= b and smin <= c and smax >= d
        and ul <= e and uh >= f and sl <= g and sh >= h
        and not m & ~unknown and not (bits ^ t) & ~unknown
    )  # fmt: skip
