"""The prover: what it shows, and what it must not show."""

from __future__ import annotations

import numpy as np
import pytest

import bpfpatch as bp
from bpfpatch import isa
from bpfpatch.repair.prove import never_taken
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
