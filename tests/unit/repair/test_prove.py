"""The prover: what it shows, and what it must not show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bpfpatch as bp
from bpfpatch import isa
from bpfpatch.isa.semantics import compute
from bpfpatch.repair.prove import never_taken
from bpfpatch.repair.prove.ops import alu, condition
from bpfpatch.repair.site import SiteCode

z3 = pytest.importorskip("z3")


def is_proved(text: str) -> bool:
    """Whether the last conditional jump of a program is shown to be never taken."""
    program = bp.asm.assemble(text.replace(";", "\n"))
    jumps = np.flatnonzero(isa.is_cond_jump(program.insns))
    return never_taken(SiteCode(bp.PatchList(program)), int(jumps[-1]))


@pytest.mark.parametrize(
    "text",
    [
        "r6 = *(u32 *)(r1 + 0); r6 &= 7; if r6 > 7 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r3 = 4; r6 %= r3; if r6 > 3 goto l; l: r0 = 0; exit",
        "r6 = *(u64 *)(r1 + 0); if r6 > 9 goto l; r6 <<= 2; if r6 > 36 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r7 = 1; if r6 == 6 goto k; r7 = 0; k: if r6 != 6 goto l;"
        "if r7 == 0 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); w7 = w6; w7 >>= 1; r6 &= 255; w7 = w6; w7 >>= 1; if r7 > 4 goto l;"
        "if r6 > 9 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r6 &= 3; *(u64 *)(r10 - 8) = r6; call 7; r7 = *(u64 *)(r10 - 8);"
        "if r7 > 3 goto l; l: r0 = 0; exit",
        "r2 = r10; r2 += -16; r3 = r2; r3 -= r10; r3 &= 4; if r3 != 0 goto l; l: r0 = 0; exit",
    ],
    ids=["mask", "modulo", "shift", "correlated", "half", "spilled", "frame"],
)
def test_shown(text: str) -> None:
    """A check that follows from the code in front of it is shown never to fire."""
    assert is_proved(text)


@pytest.mark.parametrize(
    "text",
    [
        "r6 = *(u32 *)(r1 + 0); r6 &= 7; if r6 > 6 goto l; l: r0 = 0; exit",
        "r6 = *(u64 *)(r1 + 0); r6 <<= 2; if r6 > 36 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r7 = 1; if r6 == 6 goto k; r7 = 0; k: if r6 == 7 goto l;"
        "if r7 == 0 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r6 &= 3; *(u64 *)(r10 - 8) = r6; r1 = r10; r1 += -8; r2 = 8;"
        "r3 = 0; call 113; r7 = *(u64 *)(r10 - 8); if r7 > 3 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r2 = r10; r2 += -8; r3 = r2; r3 += -16; *(u64 *)(r10 - 24) = 3;"
        "*(u64 *)(r3 + 0) = r6; r7 = *(u64 *)(r10 - 24); if r7 > 3 goto l; l: r0 = 0; exit",
        "r6 = *(u32 *)(r1 + 0); r2 = r10; r3 = r10; r3 += -8; *(u64 *)(r10 - 24) = 3;"
        "*(u64 *)(r2 - 24) = r6; r7 = *(u64 *)(r10 - 24); if r7 > 3 goto l; l: r0 = 0; exit",
        "r6 = 0; k: r6 += 1; if r6 < 9 goto k; if r6 > 9 goto l; l: r0 = 0; exit",
        "r6 = 5; if r6 == 7 goto k; exit; k: if r6 == 6 goto l; l: r0 = 0; exit",
    ],
    ids=[
        "mask",
        "overflow",
        "other-value",
        "given-away",
        "two-steps",
        "no-step",
        "loop",
        "contradiction",
    ],
)
def test_not_shown(text: str) -> None:
    """What may fire, or cannot be told, is not shown; nor is anything in code that never runs."""
    assert not is_proved(text)


NUMBERS = (
    0,
    1,
    7,
    31,
    33,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 32,
    (1 << 63) + 5,
    (1 << 64) - 1,
)
OPS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xB0, 0xC0)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("cls", [0x04, 0x07])
def test_arithmetic_is_that_of_numbers(op: int, cls: int) -> None:
    """Terms compute what `isa.compute` does."""
    code = op | cls | 0x08
    for left, right in itertools.product(NUMBERS, NUMBERS[:6]):
        term = alu(z3, code, 0, 0, z3.BitVecVal(left, 64), z3.BitVecVal(right, 64))
        assert z3.simplify(term).as_long() == compute(code, 0, left, right, 0)


@pytest.mark.parametrize("op", [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0])
@pytest.mark.parametrize("cls", [0x05, 0x06])
def test_conditions_are_those_of_numbers(op: int, cls: int) -> None:
    """Conditions hold for terms where they hold for numbers."""
    from bpfpatch.isa.semantics import holds

    for left in NUMBERS:
        for right in NUMBERS:
            term = condition(z3, op | cls | 8, 0, z3.BitVecVal(left, 64), z3.BitVecVal(right, 64))
            assert bool(z3.simplify(term)) == holds(op | cls | 8, left, right)
