"""Numbers that are known in part: as precise as the verifier, and never wrong."""

from __future__ import annotations

import random

import pytest

from bpfpatch.isa.semantics import U32, U64, compute, holds
from bpfpatch.linux.verifier import branches, scalarops, scalars
from bpfpatch.linux.verifier.scalars import LOADED, UNKNOWN

OPERATIONS = (0x00, 0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x80, 0xA0, 0xC0)
COMPARISONS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, U32, 1 << 32, (1 << 63) - 1)


def number(rng: random.Random) -> int:
    """A number, often one at an edge."""
    value = rng.choice(EDGES) if rng.random() < 0.7 else rng.randrange(1 << 64)
    return value if rng.random() < 0.6 else -value & U64


def a_few(rng: random.Random) -> tuple[list[int], scalars.Value]:
    """A few numbers, and the scalar that they all are."""
    found = [number(rng) for _ in range(rng.randint(1, 4))]
    out: scalars.Value = found[0]
    for one in found[1:]:
        out = scalars.union(out, one)
    return found, out


def test_arithmetic_holds_every_result() -> None:
    """What an instruction computes of two numbers is in what it computes of their scalars."""
    rng = random.Random(3)
    for _ in range(6000):
        code = rng.choice(OPERATIONS) | rng.choice((0x04, 0x07))
        lefts, left = a_few(rng)
        if code & 0xF0 in (0x60, 0x70, 0xC0):
            right = rng.randrange(64 if code & 7 == 7 else 32)
            rights = [right]
        else:
            rights, right = a_few(rng)
        result = scalarops.arithmetic(code, left, right)
        for a in lefts:
            for b in rights:
                computed = compute(code, 0, a, b, 0)
                assert computed is not None
                assert scalars.covers(result, computed), (hex(code), a, b, left, right)


def test_branches_keep_every_number() -> None:
    """A decided branch is decided so for all numbers; a refined scalar has all that go there."""
    rng = random.Random(4)
    for _ in range(6000):
        code = rng.choice(COMPARISONS) | rng.choice((0x05, 0x06))
        lefts, left = a_few(rng)
        rights, right = a_few(rng)
        verdict = branches.decided(code, left, right)
        assert lefts
        assert rights
        for a in lefts:
            for b in rights:
                is_taken = holds(code, a, b)
                assert is_taken is not None
                if verdict is not None:
                    assert verdict == is_taken, (hex(code), a, b)
                    continue
                new_left, new_right = branches.refined(code, left, right, is_taken)
                assert scalars.covers(new_left, a), (hex(code), a, b, left, right)
                assert scalars.covers(new_right, b), (hex(code), a, b, left, right)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_extensions_hold_every_result(size: int) -> None:
    """Cutting a number, and extending it with its sign, keeps all numbers."""
    rng = random.Random(size)
    for _ in range(1500):
        found, value = a_few(rng)
        assert found
        cut = scalars.truncated(value, size)
        extended = scalars.sign_extended(value, size, True)
        half = scalars.sign_extended(value, size, False)
        for one in found:
            low = one & ((1 << 8 * size) - 1)
            sign = low - (1 << 8 * size) if low >> (8 * size - 1) else low
            assert scalars.covers(cut, low)
            assert scalars.covers(extended, sign & U64)
            assert scalars.covers(half, sign & U32)


def test_byte_swap_follows_bits() -> None:
    """A byte that is swapped into the upper one of two has eight zeros below it.

    Expected: linux v6.18.44's log of ``r0 = be16 r0`` for a number of one byte.
    """
    swapped = scalarops.arithmetic(0xDC, LOADED[1], 16)
    assert scalars.parts(swapped)[:4] == (0, 0xFF00, 0, 0xFF00)


@pytest.mark.parametrize("code", [0x37, 0x34, 0x97, 0x94])
def test_division_is_not_followed(code: int) -> None:
    """The verifier knows nothing of a quotient or remainder, not even of its upper half.

    Expected: linux v6.18.44's log of ``r0 /= 3`` and ``w0 %= 3`` for 9.
    """
    assert scalarops.arithmetic(code, 9, 3) == UNKNOWN


def test_wrapped_ranges_are_kept() -> None:
    """A range stays one where both of its ends wrap around."""
    value = scalars.in_range(10, 20)
    assert scalars.parts(scalarops.arithmetic(0x17, value, 30))[2:4] == (-20 & U64, -10 & U64)


def test_widening_ends() -> None:
    """A number that grows is any number after a few steps."""
    value: scalars.Value = 1
    for _ in range(10):
        value = scalars.widened(scalarops.arithmetic(0x07, value, 1))
    assert value == UNKNOWN
