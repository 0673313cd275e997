"""Constant arithmetic against the kernel: what it computes is what dce may count on.

A program computes on operands that the verifier cannot know (a byte of the
packet, which is 0, is added to each), and mixes every result into a sum. Its
answer is that sum; one wrong bit anywhere changes it.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.isa.semantics import U64, compute, holds
from support.machine.rawprog import run_raw
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

EDGES = [0, 1, 2, 3, 31, 32, 63, 0x7F, 0x80, 0xFF, 0x8000, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63]
EDGES += [U64 - edge for edge in EDGES]
ALU_OPS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xC0)
JUMP_OPS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
N_OPS = 400
MIX = 31
X = 0x08


def pick(rng: random.Random) -> int:
    """A value: an edge, or any."""
    return rng.choice(EDGES) if rng.random() < 0.6 else rng.getrandbits(64)


def loaded(register: isa.Reg, value: int) -> list[isa.Insns]:
    """Put a value into a register without the verifier's knowing: R7 holds 0."""
    return [isa.ld_imm64(register, value), isa.alu("+=", register, isa.R7)]


def arithmetic(rng: random.Random) -> tuple[isa.Insns, int, int, int]:
    """A random instruction on R1 and R2, their values, and R1 afterwards."""
    left, right = pick(rng), pick(rng)
    form = rng.randrange(8)
    if form == 0:
        code, slot_off = rng.choice([(0xBF, 8), (0xBF, 16), (0xBF, 32), (0xBC, 8), (0xBC, 16)])
        imm = 0
    elif form == 1:
        code, slot_off, imm = 0xD7, 0, rng.choice([16, 32, 64])
    else:
        operation = rng.choice(ALU_OPS)
        code = operation | rng.choice([0x04, 0x07]) | (X if rng.random() < 0.6 else 0)
        slot_off = int(operation in (0x30, 0x90) and rng.random() < 0.5)
        imm = 0
        if operation == 0x80:
            code &= ~X
        elif not code & X:
            imm = rng.choice([1, 2, 3, 7, -1, -128, (1 << 31) - 1, -(1 << 31)])
            # Counts that a shift would cut off, the verifier refuses.
            imm = imm & 31 if operation in (0x60, 0x70, 0xC0) else imm
    insn = isa.make(code, 1, 2 if code & X and code != 0xD7 else 0, slot_off, imm)
    after = compute(code, slot_off, left, right if code & X else imm & U64, imm)
    assert after is not None
    return insn, left, right, after


def mixed(total: int, value: int) -> int:
    """The next sum."""
    return (total * MIX + value) & U64


def answer(parts: list[isa.Insns]) -> int:
    """Run the parts between a start that makes R6 = R7 = 0 and an end that folds R6 to 32 bits."""
    ld_abs_byte = isa.make(0x30)
    start = [isa.mov(6, isa.R1), ld_abs_byte, isa.mov(7, isa.R0), isa.mov(6, 0)]
    end = [isa.mov(0, isa.R6), isa.alu(">>=", 0, 32), isa.alu("^=", 0, isa.R6), isa.exit_()]
    return run_raw(isa.to_bytes(np.concatenate([*start, *parts, *end]), "little"))


def folded(total: int) -> int:
    """What the program's end makes of the sum."""
    return (total >> 32 ^ total) & 0xFFFF_FFFF


@pytest.mark.parametrize("seed", range(12))
def test_kernel_computes_the_same(seed: int) -> None:
    """The sum over hundreds of random operations is the kernel's."""
    need_bpf()
    rng = random.Random(seed)
    parts: list[isa.Insns] = []
    total = 0
    for _ in range(N_OPS):
        insn, left, right, after = arithmetic(rng)
        parts += [*loaded(isa.R1, left), *loaded(isa.R2, right), insn]
        parts += [isa.alu("*=", 6, MIX), isa.alu("+=", 6, isa.R1)]
        total = mixed(total, after)
    assert answer(parts) == folded(total)


@pytest.mark.parametrize("seed", range(12))
def test_kernel_decides_the_same(seed: int) -> None:
    """Over hundreds of random comparisons, the kernel takes the branches that we say it does."""
    need_bpf()
    rng = random.Random(seed)
    parts: list[isa.Insns] = []
    total = 0
    for _ in range(N_OPS):
        left, right = pick(rng), pick(rng)
        if rng.random() < 0.3:
            right = left
        code = rng.choice(JUMP_OPS) | rng.choice([0x05, 0x06])
        if rng.random() < 0.5:
            parts += [*loaded(isa.R1, left), *loaded(isa.R2, right), isa.make(code | X, 1, 2, 1)]
        else:
            imm = rng.choice([0, 1, -1, 255, -(1 << 31), (1 << 31) - 1])
            right = imm & U64
            parts += [*loaded(isa.R1, left), isa.make(code, 1, 0, 1, imm)]
        parts += [isa.alu("+=", 6, 1), isa.alu("*=", 6, MIX)]
        total = (total + (not holds(code, left, right))) * MIX & U64
    assert answer(parts) == folded(total)
