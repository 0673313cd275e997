"""Which registers an instruction reads where its fields say, and how to make it read others."""

from __future__ import annotations

from typing import Final, NamedTuple

from bpfpatch import isa
from bpfpatch.isa.semantics import (
    ALU,
    ALU64,
    ARSH,
    CLASS_MASK,
    DIV,
    END,
    JMP,
    JMP32,
    LSH,
    MOD,
    MOV,
    NEG,
    OP_MASK,
    RSH,
    SRC_X,
    signed,
)

_LDX, _ST, _STX = 1, 2, 3
_MODE, _MEM, _MEMSX, _DW, _SIZE_MASK = 0xE0, 0x60, 0x80, 0x18, 0x18
_COMPARES: Final = frozenset((0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0))
_STX_TO_ST: Final = _STX - _ST


class Fields(NamedTuple):
    """The fields of an instruction."""

    code: int
    dst: int
    src: int
    off: int
    imm: int


class Reads(NamedTuple):
    """How the registers in the fields are read.

    Attributes:
        dst: whether the destination field is only read: it may name another register.
        src: whether the source field is read.
        fixed: whether the destination is read and written.
    """

    dst: bool
    src: bool
    fixed: bool


def reads_of(code: int) -> Reads | None:
    """How an instruction reads its fields; None for what reads registers in other ways, too."""
    kind, has_src = code & CLASS_MASK, bool(code & SRC_X)
    found = None
    if code == isa.LD_IMM64:
        found = Reads(dst=False, src=False, fixed=False)
    elif kind in (ALU, ALU64):
        operation = code & OP_MASK
        has_src &= operation not in (NEG, END)
        found = Reads(dst=False, src=has_src, fixed=operation != MOV)
    elif kind == _LDX and code & _MODE in (_MEM, _MEMSX):
        found = Reads(dst=False, src=True, fixed=False)
    elif kind in (_ST, _STX) and code & _MODE == _MEM:
        found = Reads(dst=True, src=kind == _STX, fixed=False)
    elif kind in (JMP, JMP32) and code & OP_MASK in _COMPARES:
        found = Reads(dst=True, src=has_src, fixed=False)
    return found


def with_register(now: Fields, register: int, other: int) -> Fields | None:
    """An instruction that reads another register in place of one, or None if it cannot."""
    reads = reads_of(now.code)
    if reads is None or (reads.fixed and now.dst == register):
        return None
    if reads.dst and now.dst == register:
        now = now._replace(dst=other)
    if reads.src and now.src == register:
        now = now._replace(src=other)
    return now


def with_number(now: Fields, register: int, number: int) -> Fields | None:
    """An instruction that has a number for an immediate in place of a register, or None.

    Args:
        now: the instruction.
        register: which.
        number: unsigned 64 bits, what the register holds.
    """
    reads = reads_of(now.code)
    if reads is None or ((reads.fixed or reads.dst) and now.dst == register):
        return None
    if not reads.src or now.src != register:
        return now
    kind = now.code & CLASS_MASK
    if kind == _LDX or (kind in (ALU, ALU64) and not _takes(now, number)):
        return None
    size = now.code & _SIZE_MASK
    is_wide = kind in (ALU64, JMP) or (kind == _STX and size == _DW)
    value = signed(number, 64)
    if is_wide and not -(1 << 31) <= value < 1 << 31:
        return None
    value = signed(number, 32)
    if kind == _STX:
        return now._replace(code=now.code - _STX_TO_ST, src=0, imm=value)
    return now._replace(code=now.code & ~SRC_X, src=0, imm=value)


def _takes(now: Fields, number: int) -> bool:
    """Whether the verifier takes an operation with such an immediate.

    Source: linux v6.18, kernel/bpf/verifier.c, check_alu_op().
    """
    operation = now.code & OP_MASK
    n_bits = 64 if now.code & CLASS_MASK == ALU64 else 32
    if operation == MOV:
        return not now.off
    if operation in (DIV, MOD):
        return bool(number & 0xFFFFFFFF)
    if operation in (LSH, RSH, ARSH):
        return number & ((1 << n_bits) - 1) < n_bits
    return True
