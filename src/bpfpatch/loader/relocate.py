"""Apply what a linked program leaves to the loader: CO-RE records, then relocations.

Source: libbpf v1.1, src/libbpf.c, bpf_object__relocate_data().
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.bpf.errors import KernelError
from bpfpatch.elf import LinkedProgram, LinkReloc, TargetKind
from bpfpatch.elf.space import CORE_RELO, RELOC_TABLE
from bpfpatch.errors import UnsupportedError
from bpfpatch.isa import Pseudo, PseudoCall
from bpfpatch.program import Program

from .core import apply_core
from .externs import Needs, kernel_function, kernel_symbol

_APPLIED: Final = (RELOC_TABLE, CORE_RELO)


def resolve(linked: LinkedProgram, needs: Needs) -> Program:
    """The flat program as the kernel wants it, without the records that are applied now.

    Records would hold on to instructions that may change freely from here on.

    Args:
        linked: the program.
        needs: what its relocations are against, and the object's types.

    Raises:
        CoreRelocationError: a CO-RE record does not fit its instruction.
        KernelError: something that it needs is not there.
        UnsupportedError: it needs what cannot be loaded.
    """
    program, btf = linked.program, needs.btf
    if len(linked.core_relo) and btf is None:
        raise KernelError(
            0, f"{linked.name} has CO-RE records; give btf=, the types that they refer to"
        )
    insns = program.insns.copy() if btf is None else apply_core(program, btf)
    for reloc in linked.relocations:
        _apply(insns, reloc, needs, program)
    tables = {name: table for name, table in program.tables.items() if name not in _APPLIED}
    return replace(program, insns=insns, tables=tables)


def _apply(insns: NDArray[Any], reloc: LinkReloc, needs: Needs, program: Program) -> None:
    btf = needs.btf
    kind, name, slot = reloc.target.kind, reloc.target.name, reloc.slot
    is_weak = name in needs.weak
    if kind is TargetKind.MAP:
        _set_imm64(insns, slot, Pseudo.MAP_FD, needs.map(name).fd)
    elif kind is TargetKind.DATA:
        _set_imm64(insns, slot, Pseudo.MAP_VALUE, needs.map(name).fd, reloc.addend)
    elif kind is TargetKind.KCONFIG:
        _set_imm64(insns, slot, Pseudo.MAP_VALUE, needs.map(".kconfig").fd, needs.place(name))
    elif kind is TargetKind.KFUNC:
        insns["regs"][slot] = PseudoCall.KFUNC << 4
        insns["imm"][slot] = kernel_function(name, btf, is_weak=is_weak)
        insns["off"][slot] = 0
    elif kind is TargetKind.KSYM:
        found = kernel_symbol(name, btf, is_weak=is_weak)
        if found.btf_id:
            _set_imm64(insns, slot, Pseudo.BTF_ID, found.btf_id)
        else:
            _set_imm64(insns, slot, Pseudo.NUMBER, found.address & 0xFFFFFFFF, found.address >> 32)
    else:
        raise UnsupportedError(
            f"{program.where(slot)}: jump table {name!r} needs a map of instructions, which "
            "is not loaded yet; compile without jump tables (-fno-jump-tables)"
        )


def _set_imm64(insns: NDArray[Any], slot: int, src: Pseudo, low: int, high: int = 0) -> None:
    insns["regs"][slot] = int(insns["regs"][slot]) & 0xF | src << 4
    insns["imm"][slot : slot + 2] = np.array([low, high], np.int64).astype(np.int32)
