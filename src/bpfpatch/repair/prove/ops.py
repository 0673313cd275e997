"""What instructions compute, as terms of z3: registers are bit vectors of 64 bits.

Source: RFC 9669, section 4; `bpfpatch.isa.semantics` says the same of numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bpfpatch.isa.semantics import (
    ADD,
    ALU,
    AND,
    ARSH,
    CLASS_MASK,
    DIV,
    JMP32,
    LSH,
    MOD,
    MOV,
    MUL,
    NEG,
    OP_MASK,
    OR,
    RSH,
    SRC_X,
    SUB,
    XOR,
)

Term = Any
"""A z3 expression; z3 has no types of its own to name."""

_JSET: Final = 0x40


def alu(z3: Any, code: int, off: int, imm: int, dst: Term, src: Term) -> Term | None:
    """What an arithmetic instruction leaves in its register; None where this does not know."""
    bits = 32 if code & CLASS_MASK == ALU else 64
    op = code & OP_MASK
    right = src if code & SRC_X else z3.BitVecVal(imm, 64)
    left = dst
    if bits == 32:
        left, right = z3.Extract(31, 0, left), z3.Extract(31, 0, right)
    out = _moved(z3, off, right, bits) if op == MOV else _computed(z3, op, off, left, right, bits)
    if out is None:
        return None
    return z3.ZeroExt(32, out) if bits == 32 else out


def _moved(z3: Any, off: int, right: Term, bits: int) -> Term | None:
    if off == 0:
        return right
    if off not in (8, 16, 32) or off >= bits:
        return None
    return z3.SignExt(bits - off, z3.Extract(off - 1, 0, right))


def _computed(z3: Any, op: int, off: int, left: Term, right: Term, bits: int) -> Term | None:
    shift = right & (bits - 1)
    simple: dict[int, Callable[[], Term]] = {
        ADD: lambda: left + right,
        SUB: lambda: left - right,
        MUL: lambda: left * right,
        OR: lambda: left | right,
        AND: lambda: left & right,
        XOR: lambda: left ^ right,
        NEG: lambda: -left,
        LSH: lambda: left << shift,
        RSH: lambda: z3.LShR(left, shift),
        ARSH: lambda: left >> shift,
    }
    if op in simple:
        return simple[op]()
    if off != 0 or op not in (DIV, MOD):
        return None
    zero = z3.BitVecVal(0, bits)
    if op == DIV:
        return z3.If(right == zero, zero, z3.UDiv(left, right))
    return z3.If(right == zero, left, z3.URem(left, right))


def condition(z3: Any, code: int, imm: int, dst: Term, src: Term) -> Term | None:
    """When a conditional jump is taken; None where this does not know."""
    right = src if code & SRC_X else z3.BitVecVal(imm, 64)
    left = dst
    if code & CLASS_MASK == JMP32:
        left, right = z3.Extract(31, 0, left), z3.Extract(31, 0, right)
    tests: dict[int, Callable[[], Term]] = {
        0x10: lambda: left == right,
        0x20: lambda: z3.UGT(left, right),
        0x30: lambda: z3.UGE(left, right),
        _JSET: lambda: (left & right) != 0,
        0x50: lambda: left != right,
        0x60: lambda: left > right,
        0x70: lambda: left >= right,
        0xA0: lambda: z3.ULT(left, right),
        0xB0: lambda: z3.ULE(left, right),
        0xC0: lambda: left < right,
        0xD0: lambda: left <= right,
    }
    op = code & OP_MASK
    return tests[op]() if op in tests else None
