"""Constant arithmetic against an evaluation that shares nothing with it, on C's own types."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpfpatch.isa.semantics import compute, holds
from support.models import miniinterp

EDGES = [0, 1, 2, 7, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000]
EDGES += [
    sign * base + step
    for base in (1 << 31, 1 << 32, 1 << 63)
    for sign in (1, -1)
    for step in (-1, 0, 1)
]
ANY = st.integers(-(1 << 63), (1 << 64) - 1)
VALUES = st.one_of(st.sampled_from(EDGES), ANY).map(miniinterp.u64)
OPERATIONS = [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xC0]
COMPARISONS = [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0]


@given(st.sampled_from(OPERATIONS), st.sampled_from([0x04, 0x07]), VALUES, VALUES, st.booleans())
def test_arithmetic(operation: int, kind: int, left: int, right: int, is_signed: bool) -> None:
    """Every operation, 32 and 64 bits wide, computes what C's types compute."""
    slot_off = int(is_signed and operation in (0x30, 0x90))
    code = operation | kind
    assert compute(code, slot_off, left, right, 0) == miniinterp.alu(code, slot_off, left, right, 0)


@given(st.sampled_from([(0xBF, 8), (0xBF, 16), (0xBF, 32), (0xBC, 8), (0xBC, 16)]), VALUES)
def test_sign_extending_moves(form: tuple[int, int], value: int) -> None:
    """Movsx extends the sign of the narrow type to the width of its class."""
    assert compute(*form, 0, value, 0) == miniinterp.alu(*form, 0, value, 0)


@given(st.sampled_from([16, 32, 64]), VALUES)
def test_byte_swaps(width: int, value: int) -> None:
    """Bswap turns the bytes round and clears what is above."""
    assert compute(0xD7, 0, value, 0, width) == miniinterp.alu(0xD7, 0, value, 0, width)


@given(st.sampled_from(COMPARISONS), st.sampled_from([0x05, 0x06]), VALUES, VALUES)
def test_comparisons(comparison: int, kind: int, left: int, right: int) -> None:
    """Every comparison, 32 and 64 bits wide, decides as C's types do."""
    code = comparison | kind
    assert holds(code, left, right) is miniinterp.is_taken(code, left, right)
