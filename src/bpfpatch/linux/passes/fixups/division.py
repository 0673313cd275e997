"""Guards of divisions: by zero, and of the signed ones also by minus one.

A division by zero gives 0, a remainder leaves the dividend, and the smallest
number divided by minus one is itself, with remainder 0; processors trap on
them. A divisor that is a constant is known not to be 0: only minus one is left.

The kernel's form of a signed guard uses its hidden register. The loadable one has two
tests in place of the one on that, and no more registers than the division itself.

Source: RFC 9669 section 4.1; linux v6.18, kernel/bpf/verifier.c,
do_misc_fixups(), compared with what such a kernel makes of all of them.
"""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.isa import Reg
from bpfpatch.passes.search import Opcodes
from bpfpatch.patch import Body
from bpfpatch.program.types import Insns, Slots

from .job import ORIG, Job, body

_CLASS_64: Final = 0x07
_CLASS_MASK: Final = 0x07
_OP_MASK: Final = 0xF0
_DIV: Final = 0x30

_NEG_64: Final = 0x87
_NEG_32: Final = 0x84
_MOV_32: Final = 0xB4


def _divisions(operand: str) -> Opcodes:
    names = {f"{op}{width}_{operand}" for op in _OPS for width in (64, 32)}
    return Opcodes(lambda opcode: opcode.name in names)


_OPS: Final = ("div", "mod", "sdiv", "smod")
_BY_REGISTER: Final = _divisions("reg")
_BY_CONSTANT: Final = _divisions("imm")


def guard_divisions(job: Job) -> None:
    """Guard all divisions by registers, and replace those by minus one."""
    target = job.setting.target
    is_loadable = target.is_loadable
    for insn, sites in job.groups(job.code.find(_BY_REGISTER)):
        job.replace(sites, _guard(insn, None if is_loadable else target.hidden))
    by_constant = job.code.find(_BY_CONSTANT)
    if not by_constant.size:
        return
    _replace_by_minus_one(job, by_constant)
    if is_loadable:
        _replace_by_zero(job, by_constant)


def _replace_by_minus_one(job: Job, by_constant: Slots) -> None:
    """A quotient by minus one is the negative, a remainder 0."""
    some = job.insns[by_constant]
    signed = (some["off"] == 1) & (some["imm"] == -1)
    is_div = some["code"] & _OP_MASK == _DIV
    is_64 = some["code"] & _CLASS_MASK == _CLASS_64
    for which, code in (
        (signed & is_div & is_64, _NEG_64),
        (signed & is_div & ~is_64, _NEG_32),
        (signed & ~is_div, _MOV_32),
    ):
        sites = by_constant[which]
        if sites.size:
            job.modify(sites, code=code, off=0, imm=0)
            job.note_patched(sites, defines_32=code != _NEG_64)


def _replace_by_zero(job: Job, by_constant: Slots) -> None:
    """What no kernel accepts, and others may trap on."""
    for insn, sites in job.groups(by_constant[job.insns["imm"][by_constant] == 0]):
        reg = Reg(int(isa.dst(insn)[0]))
        is_div, is_64 = _kind(insn)
        if is_div:
            job.replace(sites, body(isa.mov32(reg, 0)))
        else:
            job.replace(sites, body(isa.nop() if is_64 else isa.mov32(reg, reg)))


def _kind(insn: Insns) -> tuple[bool, bool]:
    """Whether it is a quotient, and whether of 64 bits."""
    code = int(insn["code"][0])
    return code & _OP_MASK == _DIV, code & _CLASS_MASK == _CLASS_64


def _guard(insn: Insns, hidden: Reg | None) -> Body:
    """The body for one division by a register, with the hidden one if it may be used."""
    dst, src = Reg(int(isa.dst(insn)[0])), Reg(int(isa.src(insn)[0]))
    is_div, is_64 = _kind(insn)
    width = 64 if is_64 else 32
    if int(insn["off"][0]) != 1:
        return _unsigned_div(dst, src, width) if is_div else _unsigned_mod(dst, src, width)
    if hidden is None:
        return _loadable_sdiv(dst, src, width) if is_div else _loadable_smod(dst, src, width)
    return (_signed_div if is_div else _signed_mod)(dst, src, width, hidden)


def _unsigned_div(dst: Reg, src: Reg, width: int) -> Body:
    return body(
        isa.jump("!=", src, 0, 2, width=width),
        isa.alu("^=", dst, dst, width=32),
        isa.ja(1),
        ORIG,
    )


def _unsigned_mod(dst: Reg, src: Reg, width: int) -> Body:
    if width == 64:
        return body(isa.jump("==", src, 0, 1), ORIG)
    # The remainder of 32 bits by zero is the dividend of 32 bits.
    return body(isa.jump("==", src, 0, 2, width=32), ORIG, isa.ja(1), isa.mov32(dst, dst))


def _signed_div(dst: Reg, src: Reg, width: int, hidden: Reg) -> Body:
    """The hidden register is the divisor plus one: 0 or 1, unsigned, for the two that matter."""
    return body(
        isa.mov(hidden, src),
        isa.alu("+=", hidden, 1, width=width),
        isa.jump(">", hidden, 1, 4, width=width),
        isa.jump("==", hidden, 0, 1, width=width),
        isa.alu("mov", dst, 0, width=width),
        isa.neg(dst, width=width),
        isa.ja(1),
        ORIG,
    )


def _signed_mod(dst: Reg, src: Reg, width: int, hidden: Reg) -> Body:
    is_32 = width == 32
    # The remainder of 32 bits by zero is the dividend of 32 bits.
    extend = (isa.ja(1), isa.mov32(dst, dst)) if is_32 else ()
    return body(
        isa.mov(hidden, src),
        isa.alu("+=", hidden, 1, width=width),
        isa.jump(">", hidden, 1, 3, width=width),
        isa.jump("==", hidden, 1, 3 + is_32, width=width),
        isa.mov32(dst, 0),
        isa.ja(1),
        ORIG,
        *extend,
    )


def _loadable_sdiv(dst: Reg, src: Reg, width: int) -> Body:
    return body(
        isa.jump("!=", src, 0, 2, width=width),
        isa.alu("^=", dst, dst, width=32),
        isa.ja(4),
        isa.jump("!=", src, -1, 2, width=width),
        isa.neg(dst, width=width),
        isa.ja(1),
        ORIG,
    )


def _loadable_smod(dst: Reg, src: Reg, width: int) -> Body:
    is_32 = width == 32
    extend = (isa.ja(1), isa.mov32(dst, dst)) if is_32 else ()
    return body(
        isa.jump("==", src, 0, 4 + is_32, width=width),
        isa.jump("!=", src, -1, 2, width=width),
        isa.mov32(dst, 0),
        isa.ja(1),
        ORIG,
        *extend,
    )
