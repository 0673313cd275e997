"""What arithmetic and comparisons compute, as terms of z3 of 64 bits.

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
    END,
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

from .solver import Term

_JSET: Final = 0x40
_SIGNED: Final = 1
_EXTENDED: Final = (8, 16, 32)


def alu(
    z3: Any, code: int, off: int, imm: int, dst: Term, operand: Term, *, little: bool | None = None
) -> Term | None:
    """What an arithmetic instruction leaves in its register.

    Args:
        z3: the module.
        code: of class ALU or ALU64.
        off: its ``off``: 1 for signed division, 8, 16 or 32 for movsx.
        imm: its ``imm``, of a byte swap the width; 0 where that is not known.
        dst: the register before.
        operand: the source register, or the immediate, sign-extended.
        little: the machine's byte order, for swaps that depend on it; None for not known.

    Returns:
        64 bits; None for what this does not know: an address-space cast, kernel-internal forms,
        a swap on a machine of unknown order.
    """
    op = code & OP_MASK
    bits = 32 if code & CLASS_MASK == ALU else 64
    if op == END:
        return _swapped(z3, code, imm, dst, little=little)
    if imm and code & SRC_X:
        return None  # the kernel's mark of a zero extension
    left, right = dst, operand
    if bits == 32:
        left, right = z3.Extract(31, 0, left), z3.Extract(31, 0, right)
    if op == MOV:
        out = _moved(z3, code, off, right, bits)
    elif op in (DIV, MOD):
        out = _divided(z3, op, off, left, right)
    else:
        out = _computed(z3, op, left, right, bits) if off == 0 else None
    if out is None:
        return None
    return z3.ZeroExt(32, out) if bits == 32 else out


def _moved(z3: Any, code: int, off: int, right: Term, bits: int) -> Term | None:
    if off == 0:
        return right
    if off not in _EXTENDED or off >= bits or not code & SRC_X:
        return None
    return z3.SignExt(bits - off, z3.Extract(off - 1, 0, right))


def _computed(z3: Any, op: int, left: Term, right: Term, bits: int) -> Term | None:
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
    return simple[op]() if op in simple else None


def _divided(z3: Any, op: int, off: int, left: Term, right: Term) -> Term | None:
    """By zero, a quotient is 0 and a rest the dividend.

    Signed ones round towards 0, as bvsdiv and bvsrem do, and the least number by -1 wraps around.
    """
    if off not in (0, _SIGNED):
        return None
    if op == DIV:
        return z3.If(right == 0, right, left / right if off else z3.UDiv(left, right))
    return z3.If(right == 0, left, z3.SRem(left, right) if off else z3.URem(left, right))


def _swapped(z3: Any, code: int, width: int, dst: Term, *, little: bool | None) -> Term | None:
    """The lower bits in another order, the others cleared."""
    if width not in (16, 32, 64):
        return None
    is_always = code & CLASS_MASK != ALU
    is_to_big = bool(code & SRC_X)
    if (is_always and is_to_big) or (not is_always and little is None):
        return None
    low = z3.Extract(width - 1, 0, dst) if width < 64 else dst
    if is_always or is_to_big == little:
        low = z3.Concat(*(z3.Extract(at + 7, at, low) for at in range(0, width, 8)))
    return z3.ZeroExt(64 - width, low) if width < 64 else low


def condition(z3: Any, code: int, dst: Term, operand: Term) -> Term | None:
    """When a conditional jump is taken; None where this does not know.

    Args:
        z3: the module.
        code: of class JMP or JMP32.
        dst: the register.
        operand: the source register, or the immediate, sign-extended.
    """
    left, right = dst, operand
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
