"""Casts between the two addresses of an arena's memory.

A cast to the kernel's address only clears the upper half: the JIT adds the
base to each access. A cast to the user's is the JIT's to do, unless the arena
was made without such addresses. Arithmetic on arena pointers is done in 32
bits; which of it that is, only the verifier knows.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups().
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts import MapType
from bpfpatch.facts.columns import ARENA_ALU
from bpfpatch.passes.search import Opcodes

from .job import Job

NO_USER_CONV: Final = 1 << 18
"""BPF_F_NO_USER_CONV: programs give no address of this arena to user space."""

_MOV_64_REG: Final = 0xBF
_MOV_32_REG: Final = 0xBC
_CAST: Final = 1
_TO_KERNEL: Final = 1
_ALU_64: Final = 0x07
_CLASS_MASK: Final = 0x07
_OP_MASK: Final = 0xF0
_MOV: Final = 0xB0

_MOVES: Final = Opcodes(lambda opcode: opcode.code == _MOV_64_REG)
_ARITHMETIC: Final = Opcodes(
    lambda opcode: (
        opcode.kind is isa.Kind.ALU
        and opcode.code & _CLASS_MASK == _ALU_64
        and opcode.code & _OP_MASK != _MOV
    )
)


def cast_arena_pointers(job: Job) -> None:
    """Make casts and arithmetic those of 32 bits that they are.

    Raises:
        UnsupportedError: it is not known which arithmetic is on such pointers.
    """
    insns = job.insns
    casts = job.code.find(_MOVES)
    casts = casts[(insns["off"][casts] == _CAST) & (insns["imm"][casts] != 0)]
    arenas = _arenas(job)
    if not casts.size and not arenas:
        return
    _narrow_arithmetic(job)
    has_no_user_side = any(flags & NO_USER_CONV for flags in arenas)
    plain = casts[(insns["imm"][casts] == _TO_KERNEL) | has_no_user_side]
    if plain.size:
        job.modify(plain, code=_MOV_32_REG, off=0, imm=0)


def _arenas(job: Job) -> list[int]:
    subject = job.setting.subject
    maps = subject.maps if subject is not None else ()
    return [map_.flags for map_ in maps if map_.type == MapType.ARENA]


def _narrow_arithmetic(job: Job) -> None:
    insns = job.insns
    sites = job.code.find(_ARITHMETIC)
    if not sites.size:
        return
    if ARENA_ALU not in job.patches.program.columns:
        raise job.refuse(
            int(sites[0]),
            "in a program with an arena this may be arithmetic on a pointer into it, which the "
            f"kernel does in 32 bits; column {ARENA_ALU!r} would tell",
        )
    sites = sites[job.column(ARENA_ALU, sites) != 0]
    if sites.size:
        job.modify(sites, code=insns["code"][sites] & ~np.uint8(3))
