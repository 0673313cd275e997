"""Guards of divisions do what RFC 9669 says, and never divide where a processor would trap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bpfpatch import asm, isa
from bpfpatch.passes import FixupCalls, Pipeline, Target
from bpfpatch.program import Program
from support.cases.passcase import listing

LOADABLE, INTERNAL = Target.loadable(), Target.internal()
OPS = ("/=", "%=", "s/=", "s%=")
U64 = (1 << 64) - 1
EDGES = (0, 1, 2, 7, U64, U64 - 1, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, 0xFFFFFFFF)
EDGES += (1 << 32, (1 << 32) + 1, U64 << 32 & U64, (1 << 63) + (1 << 31))


def guarded(text: str, target: Target) -> Program:
    """A program with its divisions guarded."""
    return Pipeline((FixupCalls(),), target).run(asm.assemble(text)).program


def signed(value: int, width: int) -> int:
    """The number that so many bits stand for."""
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def wanted(op: str, width: int, left: int, right: int) -> int:
    """RFC 9669 section 4.1: by zero a quotient is 0, a remainder the dividend; signs truncate."""
    mask = (1 << width) - 1
    left, right = left & mask, right & mask
    if right == 0:
        return 0 if "/" in op else left
    if op[0] != "s":
        return left // right if "/" in op else left % right
    a, b = signed(left, width), signed(right, width)
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return (quotient if "/" in op else a - b * quotient) & mask


def simulate(insns: isa.Insns, regs: dict[int, int]) -> int:
    """R1 after the code, which must not divide by zero, nor the least number by minus one."""
    at = 0
    while insns["code"][at] != isa.EXIT:
        code, off, imm = (int(insns[field][at]) for field in ("code", "off", "imm"))
        dst, src = int(isa.dst(insns)[at]), int(isa.src(insns)[at])
        width = 64 if code & 7 in (5, 7) else 32
        mask = (1 << width) - 1
        right = (regs[src] if code & 8 else imm) & mask
        at += 1
        if code & 7 in (5, 6):
            left, op = regs.get(dst, 0) & mask, code & 0xF0
            is_true = {0x00: True, 0x10: left == right, 0x20: left > right, 0x50: left != right}
            at += off if is_true[op] else 0
            continue
        left, op = regs.get(dst, 0) & mask, code & 0xF0
        if op in (0x30, 0x90):
            assert right != 0
            assert not (off == 1 and right == mask and left == 1 << (width - 1))
            name = ("s" if off == 1 else "") + ("/=" if op == 0x30 else "%=")
            regs[dst] = wanted(name, width, left, right)
        else:
            results = {0xB0: right, 0x00: left + right, 0xA0: left ^ right, 0x80: -left}
            regs[dst] = results[op] & mask
    return regs[1]


@pytest.mark.parametrize("target", [LOADABLE, INTERNAL], ids=["loadable", "internal"])
@pytest.mark.parametrize("src", ["r2", "r1"])
@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("op", OPS)
def test_no_trap_and_the_same_result(op: str, width: int, src: str, target: Target) -> None:
    """For all edges of both operands, the guarded division gives what it should."""
    letter = "r" if width == 64 else "w"
    insns = guarded(f"{letter}1 {op} {letter}{src[1]}; exit", target).insns
    for left, right in itertools.product(EDGES, EDGES):
        if src == "r1" and left != right:
            continue
        got = simulate(insns, {1: left, 2: right})
        assert got == wanted(op, width, left, right), (left, right)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("value", [0, 1, -1, 3, -0x80000000])
@pytest.mark.parametrize("width", [64, 32])
def test_constants(op: str, value: int, width: int) -> None:
    """A constant divisor of 0 or, signed, minus one is done without a division."""
    letter = "r" if width == 64 else "w"
    insns = guarded(f"{letter}1 {op} {value}; exit", LOADABLE).insns
    for left in EDGES:
        got = simulate(insns, {1: left})
        assert got == wanted(op, width, left, value & U64), left


def test_other_registers_stay() -> None:
    """The loadable guards use no register but the division's own."""
    text = "; ".join(f"{w}1 {op} {w}2" for w in "rw" for op in OPS) + "; exit"
    insns = guarded(text, LOADABLE).insns
    assert set((isa.reads(insns) | isa.writes(insns)).tolist()) <= {0, 1, 2, 4, 6}


def test_loadable_needs_nothing_else() -> None:
    """For bpf(2) no columns and no subject are needed, and calls stay as they are."""
    text = "r1 = 0; call 118; call 1; call 8; r0 /= r1; exit"
    done = guarded(text, LOADABLE)
    assert listing(done).splitlines()[:4] == listing(asm.assemble(text)).splitlines()[:4]
    assert (isa.min_cpu(done.insns) < isa.CPU_INTERNAL).all()


def test_other_arithmetic_stays() -> None:
    """What is no division is left alone."""
    text = "r1 *= r2; r1 += -1; w1 = -1; r1 = (s8)r2; r1 = be16 r1; r0 = 0; exit"
    assert listing(guarded(text, INTERNAL)) == listing(asm.assemble(text))


def test_time_is_linear_in_sites() -> None:
    """Guards of many kinds in one program are grouped, not made one by one."""
    ops = [asm.assemble(f"r{a} {op} r{b}").insns for a in range(9) for b in range(9) for op in OPS]
    insns = np.concatenate([*ops * 40, isa.exit_()])
    done = Pipeline((FixupCalls(),), LOADABLE).run(Program(insns)).program
    assert np.isin(done.insns["code"], (0x3F, 0x9F)).sum() == len(ops) * 40
