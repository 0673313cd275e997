"""Builders of instructions that read like assembly.

Each returns a new array of one slot (two for ld_imm64), to be joined with
`concat`. Distances (``slot_off``) count slots from the next instruction.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from bpfpatch.errors import OptionError

from .encoding import Insns, concat, make
from .helpers import helper_id
from .opcodes import ALU_SIGNS, BY_NAME, JUMP_SIGNS
from .pseudo import Pseudo


class Reg(IntEnum):
    """A register; an operand that is one is never taken for a constant."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10
    R11 = 11
    """The base of arguments from the sixth on, from Linux 7.2 on."""
    R12 = 12
    """The kernel's hidden register from Linux 7.2 on; not in a loadable program."""
    AX = 11
    """The same up to Linux 7.1, where it is R11."""


R0: Final = Reg.R0
R1: Final = Reg.R1
R2: Final = Reg.R2
R3: Final = Reg.R3
R4: Final = Reg.R4
R5: Final = Reg.R5
R6: Final = Reg.R6
R7: Final = Reg.R7
R8: Final = Reg.R8
R9: Final = Reg.R9
R10: Final = Reg.R10

_SIZES: Final = {"u8": "b", "u16": "h", "u32": "w", "u64": "dw", "s8": "b", "s16": "h", "s32": "w"}
_ALU_BY_SIGN: Final = {sign: op for op, sign in ALU_SIGNS.items()}
_JUMP_BY_SIGN: Final = {sign: op for op, sign in JUMP_SIGNS.items()}


def mov(dst: int, value: int | Reg) -> Insns:
    """``r1 = r2`` or ``r1 = 5``; a constant is sign-extended."""
    return alu("mov", dst, value)


def mov32(dst: int, value: int | Reg) -> Insns:
    """``w1 = w2`` or ``w1 = 5``; the upper half becomes 0."""
    return alu("mov", dst, value, width=32)


def alu(op: str, dst: int, value: int | Reg, *, width: int = 64) -> Insns:
    """``r1 += r2``.

    Args:
        op: ``add`` or ``+=``, and so on for sub mul div or and lsh rsh mod
            xor mov arsh sdiv smod.
        dst: register.
        value: register or a constant of 32 bits, signed or not.
        width: 64 or 32.
    """
    name = _ALU_BY_SIGN.get(op, op)
    if isinstance(value, Reg):
        return _make(f"{name}{width}_reg", dst=dst, src=value)
    return _make(f"{name}{width}_imm", dst=dst, imm=_imm32(value))


def neg(dst: int, *, width: int = 64) -> Insns:
    """``r1 = -r1``."""
    return _make(f"neg{width}", dst=dst)


def movsx(dst: int, src: int, bits: int, *, width: int = 64) -> Insns:
    """``r1 = (s8)r2``; bits are 8, 16 or, into 64, 32."""
    return _make(f"movsx{width}_{bits}", dst=dst, src=src)


def byte_swap(op: str, dst: int, bits: int) -> Insns:
    """``r1 = be16 r1``; op is ``le``, ``be`` or ``bswap``."""
    return _make(f"{op}{bits}", dst=dst)


def ld_imm64(dst: int, value: int, src: int = Pseudo.NUMBER) -> Insns:
    """``r1 = 0x123456789 ll``, two slots.

    Args:
        dst: register.
        value: 64 bits, signed or not. Of the address forms (src 1 to 6) the
            lower half is the first slot's imm, the upper the second's.
        src: what the value stands for, see `Pseudo`.
    """
    if not -(1 << 63) <= value < 1 << 64:
        raise OptionError(f"{value:#x} does not fit the 64 bits of ld_imm64")
    if src not in list(Pseudo):
        raise OptionError(f"ld_imm64 has no form {src}; there are 0 to 6")
    code = BY_NAME["ld_imm64"].code
    low, high = _imm32(value & 0xFFFFFFFF), _imm32(value >> 32 & 0xFFFFFFFF)
    return concat([make(code, _reg(dst), src, 0, low), make(0, imm=high)])


def ld_func(dst: int, slot_off: int) -> Insns:
    """A callback's address, two slots; slot_off counts from the second slot."""
    return ld_imm64(dst, slot_off & 0xFFFFFFFF, src=Pseudo.FUNC)


def load(size: str, dst: int, src: int, byte_off: int) -> Insns:
    """``r1 = *(u32 *)(r2 + 8)``; ``s32`` and narrower extend the sign."""
    prefix = "ldsx" if size.startswith("s") else "ldx"
    return _make(f"{prefix}_{_size(size)}", dst=dst, src=src, off=byte_off)


def store(size: str, dst: int, byte_off: int, value: int | Reg) -> Insns:
    """``*(u32 *)(r1 + 8) = r2``, or a constant of 32 bits in place of ``r2``."""
    if isinstance(value, Reg):
        return _make(f"stx_{_size(size)}", dst=dst, src=value, off=byte_off)
    return _make(f"st_{_size(size)}", dst=dst, off=byte_off, imm=_imm32(value))


def atomic(op: str, size: str, dst: int, byte_off: int, src: int) -> Insns:
    """``lock *(u64 *)(r1 + 0) += r2``.

    Args:
        op: add or and xor, fetch_add and so on, xchg, cmpxchg, load_acquire
            (which loads dst from src) or store_release.
        size: ``u64`` or ``u32``; the last two operations take all sizes.
        dst: register with the address; of load_acquire the loaded one.
        byte_off: from that address.
        src: register; of load_acquire the address.
    """
    is_named = op in {"xchg", "cmpxchg", "load_acquire", "store_release"}
    name = op if is_named else f"atomic_{op}"
    return _make(f"{name}_{_size(size)}", dst=dst, src=src, off=byte_off)


def jump(op: str, dst: int, operand: int | Reg, slot_off: int, *, width: int = 64) -> Insns:
    """``if r1 > r2 goto +3``.

    Args:
        op: ``jgt`` or ``>``, and so on for jeq jge jset jne jsgt jsge jlt jle
            jslt jsle.
        dst: register.
        operand: register or a constant of 32 bits.
        slot_off: distance, 16 bits.
        width: 64 or 32.
    """
    name = _JUMP_BY_SIGN.get(op, op) + ("32" if width == 32 else "")
    if isinstance(operand, Reg):
        return _make(f"{name}_reg", dst=dst, src=operand, off=slot_off)
    return _make(f"{name}_imm", dst=dst, off=slot_off, imm=_imm32(operand))


def ja(slot_off: int) -> Insns:
    """``goto +3``, a distance of 16 bits."""
    return _make("ja", off=slot_off)


def gotol(slot_off: int) -> Insns:
    """``gotol +3``, a distance of 32 bits (cpu v4)."""
    return _make("gotol", imm=slot_off)


def may_goto(slot_off: int) -> Insns:
    """``may_goto +3``: taken when the kernel's budget for loops is used up."""
    return _make("may_goto", off=slot_off)


def nop() -> Insns:
    """``goto +0``, which unlike ``r1 = r1`` reads no register."""
    return ja(0)


def call_helper(helper: int | str) -> Insns:
    """A helper call, by number or name."""
    return _make("call_helper", imm=helper_id(helper) if isinstance(helper, str) else helper)


def call_subprog(slot_off: int) -> Insns:
    """A call of a function of the same program."""
    return _make("call_subprog", imm=slot_off)


def call_kfunc(btf_id: int, fd_index: int = 0) -> Insns:
    """A kernel function's call; fd_index says whose BTF, 0 being vmlinux's."""
    return _make("call_kfunc", imm=btf_id, off=fd_index)


def exit_() -> Insns:
    """``exit``."""
    return _make("exit")


def _make(name: str, *, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Insns:
    opcode = BY_NAME.get(name)
    if opcode is None:
        raise OptionError(f"there is no instruction {name}")
    if not -(1 << 15) <= off < 1 << 15:
        raise OptionError(f"{off} does not fit the 16 bits of {name}'s off")
    if not -(1 << 31) <= imm < 1 << 31:
        raise OptionError(f"{imm} does not fit the 32 bits of {name}'s imm")
    return make(
        opcode.code,
        _reg(dst),
        _selected(opcode.src, _reg(src)),
        _selected(opcode.off, off),
        _selected(opcode.imm, imm),
    )


def _selected(fixed: int | None, given: int) -> int:
    return given if fixed is None else fixed


def _reg(number: int) -> int:
    if not 0 <= number <= Reg.R12:
        raise OptionError(f"there is no register r{number}; the last is r{Reg.R10}")
    return int(number)


def _imm32(value: int) -> int:
    if not -(1 << 31) <= value < 1 << 32:
        raise OptionError(f"{value:#x} does not fit the 32 bits of imm; use ld_imm64")
    return value - (1 << 32) if value >= 1 << 31 else value


def _size(size: str) -> str:
    letter = _SIZES.get(size)
    if letter is None:
        raise OptionError(f"there is no access size {size!r}; choose one of {', '.join(_SIZES)}")
    return letter
