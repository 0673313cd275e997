"""What instructions are, read, write and refer to: (n,) in, (n,) out.

Every function takes (n,) `INSN` and looks it up in the opcode table; none
loops over instructions. The second slot of an ld_imm64 is not an instruction: it
is False in every predicate, reads and writes nothing and refers to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from .decode import Mask, OpcodeColumn, portions, rows, rows_at
from .encoding import Insns, dst, src, words
from .opcodes import AX, CPU_INTERNAL, OPCODES, Kind, Opcode
from .pseudo import Pseudo
from .screen import suspects
from .stackargs import stack_args


def _flag(test: Callable[[Opcode], bool], unknown: bool = False) -> OpcodeColumn:
    return OpcodeColumn(test, np.bool_, second=False, unknown=unknown)


_REF_KIND = OpcodeColumn(lambda op: op.ref, np.uint8, second=0, unknown=0)
_CPU = OpcodeColumn(lambda op: op.cpu, np.uint8, second=0, unknown=CPU_INTERNAL)
_DEFINES_32 = _flag(lambda op: op.defines_32)
# What is unknown might go on to the next instruction.
_FALLS_THROUGH = _flag(lambda op: op.falls_through, unknown=True)
_LD_IMM64 = _flag(lambda op: op.kind is Kind.LD_IMM64)
_CALL = _flag(lambda op: op.kind is Kind.CALL)
_HELPER_CALL = _flag(lambda op: op.name == "call_helper")
_SUBPROG_CALL = _flag(lambda op: op.name == "call_subprog")
_KFUNC_CALL = _flag(lambda op: op.name == "call_kfunc")
_EXIT = _flag(lambda op: op.kind is Kind.EXIT)
_JUMP = _flag(lambda op: op.kind in {Kind.JUMP, Kind.COND_JUMP})
_COND_JUMP = _flag(lambda op: op.kind is Kind.COND_JUMP)
_UNCOND_JUMP = _flag(lambda op: op.kind is Kind.JUMP)
_LOAD = _flag(lambda op: op.kind is Kind.LOAD)
_PACKET_LOAD = _flag(lambda op: op.kind is Kind.PACKET_LOAD)
_STORE = _flag(lambda op: op.kind is Kind.STORE)
_ATOMIC = _flag(lambda op: op.kind is Kind.ATOMIC)
_ALU = _flag(lambda op: op.kind is Kind.ALU)
_MAY_GOTO = _flag(lambda op: op.name == "may_goto")
_NOP_16 = _flag(lambda op: op.name in {"ja", "may_goto"})
_NOP_32 = _flag(lambda op: op.name == "gotol")

_READS = OpcodeColumn(lambda op: op.reads_fixed, np.uint16, second=0, unknown=0)
_READS_DST = OpcodeColumn(lambda op: "dst" in op.reads, np.uint16, second=0, unknown=0)
_READS_SRC = OpcodeColumn(lambda op: "src" in op.reads, np.uint16, second=0, unknown=0)
_WRITES = OpcodeColumn(lambda op: op.writes_fixed, np.uint16, second=0, unknown=0)
_WRITES_DST = OpcodeColumn(lambda op: "dst" in op.writes, np.uint16, second=0, unknown=0)
_WRITES_SRC = OpcodeColumn(lambda op: "src" in op.writes, np.uint16, second=0, unknown=0)


def ref_kinds(insns: Insns) -> npt.NDArray[np.uint8]:
    """Which field of each names another instruction: `RefKind` as (n,) uint8."""
    return _REF_KIND(insns)


def is_ld_imm64(insns: Insns) -> Mask:
    """First slots of two-slot loads, of constants and of addresses."""
    return _LD_IMM64(insns)


def is_pseudo(insns: Insns, *kinds: Pseudo) -> Mask:
    """First slots of two-slot loads of these kinds."""
    out = _LD_IMM64(insns)
    at = np.flatnonzero(out)
    out[at] = np.isin(src(insns[at]), kinds)
    return out


def is_call(insns: Insns) -> Mask:
    """Calls of any kind: helper, subprog, kfunc, callx and kernel-internal."""
    return _CALL(insns)


def is_helper_call(insns: Insns) -> Mask:
    """Calls of a helper by number."""
    return _HELPER_CALL(insns)


def is_subprog_call(insns: Insns) -> Mask:
    """Calls of a function of the same program."""
    return _SUBPROG_CALL(insns)


def is_kfunc_call(insns: Insns) -> Mask:
    """Calls of a kernel function by BTF id."""
    return _KFUNC_CALL(insns)


def is_exit(insns: Insns) -> Mask:
    """Exits."""
    return _EXIT(insns)


def is_jump(insns: Insns) -> Mask:
    """Jumps of any kind: ja, gotol, gotox, conditional ones and may_goto."""
    return _JUMP(insns)


def is_cond_jump(insns: Insns) -> Mask:
    """Jumps that may be taken or not, may_goto among them."""
    return _COND_JUMP(insns)


def is_uncond_jump(insns: Insns) -> Mask:
    """Jumps that are always taken: ja, gotol, gotox."""
    return _UNCOND_JUMP(insns)


def is_may_goto(insns: Insns) -> Mask:
    """The jumps that the kernel takes when a loop's budget is used up."""
    return _MAY_GOTO(insns)


def is_load(insns: Insns) -> Mask:
    """Loads through a register, sign-extending and kernel-internal ones too.

    Not load_acquire (see `is_atomic`), not ld_abs (see `is_packet_load`).
    """
    return _LOAD(insns)


def is_packet_load(insns: Insns) -> Mask:
    """The legacy loads from the packet, ld_abs and ld_ind."""
    return _PACKET_LOAD(insns)


def is_store(insns: Insns) -> Mask:
    """Stores of a register or a constant; not store_release (see `is_atomic`)."""
    return _STORE(insns)


def is_atomic(insns: Insns) -> Mask:
    """Atomic operations, load_acquire and store_release among them."""
    return _ATOMIC(insns)


def is_alu(insns: Insns) -> Mask:
    """Arithmetic, moves, byte swaps and address space casts."""
    return _ALU(insns)


def falls_through(insns: Insns) -> Mask:
    """Instructions after which the next one can run; unknown opcodes count as such."""
    return _FALLS_THROUGH(insns)


def defines_32(insns: Insns) -> Mask:
    """Instructions that define only the lower half of a register.

    A target without implicit zero extension must clear the upper half after
    them. The register is that of `writes`, but R0 alone for packet loads.

    Source: linux v6.18, kernel/bpf/verifier.c, is_reg64(), insn_has_def32().
    """
    return _DEFINES_32(insns)


def is_nop(insns: Insns) -> Mask:
    """Jumps to the next instruction: ja, gotol and may_goto of distance 0."""
    out: Mask = _NOP_16(insns) & (insns["off"] == 0)
    out |= _NOP_32(insns) & (insns["imm"] == 0)
    return out


def reads(insns: Insns) -> npt.NDArray[np.uint16]:
    """Registers that each reads, (n,) uint16; bit r is register r.

    A call reads R1 to R5, since how many arguments it takes is not in it; an
    exit reads R0.
    """
    return _registers(insns, _READS.by_row, _READS_DST.by_row, _READS_SRC.by_row)


def writes(insns: Insns) -> npt.NDArray[np.uint16]:
    """Registers that each defines or clobbers, (n,) uint16 as in `reads`.

    A call and a packet load clobber R1 to R5 beside the R0 that they define.
    """
    return _registers(insns, _WRITES.by_row, _WRITES_DST.by_row, _WRITES_SRC.by_row)


def min_cpu(insns: Insns, among: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.uint8]:
    """The lowest cpu version that has each, (n,) uint8.

    1 to 4; `CPU_NEWER` (5) for what no version names; `CPU_INTERNAL` (255) for
    what bpf(2) refuses: kernel-internal forms, registers above R10 and unknown
    opcodes; 0 for second slots. Compilers pass arguments by R11 in every
    version, so that it counts as none: see `stack_args`.

    Args:
        insns: (n,) `INSN`.
        among: what `suspects` says with ``allow_internal``, where that is known already.
    """
    if among is None:
        among = suspects(insns, allow_internal=True)
    heads, by_head = words(insns).view(np.uint16)[::4], _plain_cpus()
    out = np.empty(len(insns), np.uint8)
    for part in portions(len(insns)):
        by_head.take(heads[part], mode="clip", out=out[part])
    found = _CPU.by_row.take(rows_at(insns, among))
    some = insns[among]
    found[((dst(some) >= AX) | (src(some) >= AX)) & (found != 0)] = CPU_INTERNAL
    out[among] = found
    if (out == CPU_INTERNAL).any():
        out[stack_args(insns) != 0] = 1
    return out


@cache
def _plain_cpus() -> npt.NDArray[np.uint8]:
    """The same by code and registers, the first two bytes, of what is not a suspect."""
    table = np.zeros((16, 16, 256), np.uint8)  # by src, dst and code
    for opcode in OPCODES:
        if not opcode.off and not opcode.imm:
            table[slice(None) if opcode.src is None else opcode.src, :, opcode.code] = opcode.cpu
    table[AX:] = table[:, AX:] = CPU_INTERNAL
    table.flags.writeable = False
    return table.reshape(-1)


def _registers(
    insns: Insns,
    fixed: npt.NDArray[np.uint16],
    has_dst: npt.NDArray[np.uint16],
    has_src: npt.NDArray[np.uint16],
) -> npt.NDArray[np.uint16]:
    found = rows(insns)
    out = np.empty(len(insns), np.uint16)
    for part in portions(len(insns)):
        here, some = found[part], insns[part]
        found_here = fixed.take(here)
        found_here |= has_dst.take(here) << dst(some)
        found_here |= has_src.take(here) << src(some)
        out[part] = found_here
    return out
