"""Known bits hold in every run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.dataflow.bitflow import BitFlow
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.knownbits import Bits, alu_bits, joined, refined
from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.isa.semantics import U64, compute, holds
from bpfpatch.patch import CodeView
from support.generators.programs import random_code

OPS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xC0)
JUMPS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
N_CASES = 400
N_PROGRAMS = 60


def some_bits(rng: random.Random) -> tuple[Bits, int]:
    """What is known of a number, and the number."""
    value = rng.choice((rng.getrandbits(64), rng.randrange(100), U64 - rng.randrange(100)))
    unknown = rng.choice((0, 0xFF, 0xFFFFFFFF, U64, rng.getrandbits(64) & rng.getrandbits(64)))
    return (value & ~unknown, unknown), value


def has(bits: Bits, value: int) -> bool:
    """Whether a number is one of those of which so much is known."""
    return not (value ^ bits[0]) & ~bits[1] & U64 and not bits[0] & bits[1]


@pytest.mark.parametrize("op", OPS)
def test_arithmetic_keeps_what_is_known(op: int) -> None:
    """The result of numbers with some bits known has the bits that are said to be known."""
    rng = random.Random(op)
    for _ in range(N_CASES):
        (left, a), (right, b) = some_bits(rng), some_bits(rng)
        if rng.random() < 0.5:
            b = rng.randrange(70)
            right = (b, 0)
        cls = rng.choice((0x04, 0x07))
        off = 0
        if op in (0x30, 0x90):
            off = rng.randrange(2)
        if op == 0xB0:
            off = rng.choice((0, 8, 16, 32 if cls == 0x07 else 0))
        value = compute(op | cls | 8, off, a, b, 0)
        assert value is not None
        found = alu_bits(op | cls | 8, off, 0, left, right)
        assert has(found, value), (hex(op), cls, off, left, right, a, b)


@pytest.mark.parametrize("op", JUMPS)
def test_comparisons_tell_what_is_known(op: int) -> None:
    """On the side of a comparison on which a number is, it has the bits that are said of it."""
    rng = random.Random(op)
    for _ in range(N_CASES):
        bits, value = some_bits(rng)
        right = rng.choice((value, value & 0xFFFFFFFF, rng.randrange(300), rng.getrandbits(64)))
        code = op | rng.choice((5, 6))
        taken = holds(code, value, right)
        assert taken is not None
        assert has(refined(code, bits, right, is_taken=taken), value), (code, bits, value, right)


def test_a_join_knows_what_both_know() -> None:
    """Of what is one of two numbers, no more is known than holds of both."""
    rng = random.Random(1)
    for _ in range(N_CASES):
        (one, a), (other, b) = some_bits(rng), some_bits(rng)
        both = joined((*one, 0), (*other, 1))
        assert has(both[:2], a)
        assert has(both[:2], b)
        assert both[2] == 1


def test_registers_of_runs_are_as_known() -> None:
    """In front of every instruction of a run, both its registers are as the flow says."""
    n_known = 0
    for seed in range(N_PROGRAMS):
        program = assemble(random_code(seed))
        view = CodeView.of_program(program)
        blocks = Blocks.of(view, np.zeros(0, np.int32))
        nothing = np.zeros(0, np.int32)
        flow = BitFlow(view, blocks, np.zeros(len(view), bool), nothing)

        def check(slot: int, regs: tuple[int, ...], at: tuple[Any, ...] = (seed, flow)) -> None:
            nonlocal n_known
            for bits, field in ((at[1].dst[slot], isa.dst), (at[1].src[slot], isa.src)):
                register = int(field(program.insns[slot : slot + 1])[0])  # noqa: B023 - the same
                assert has(bits[:2], regs[register]), (at[0], slot, register)
                n_known += bits[1] != U64

        machine = Machine(program, MachineOptions(hook=check))
        machine.run(mem=random.Random(seed).randbytes(64))
    assert n_known > N_PROGRAMS
