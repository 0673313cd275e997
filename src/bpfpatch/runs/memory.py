"""Programs on plain memory, made fit for the kernel.

The kernel has no kind of program that gets the address and length of some
memory. So the program is rewritten: a prologue loads the address of an array's
only element into R1 and its length into R2, and each exit of the main function
first stores R0, all 64 bits of it, into another array. The verifier knows the
element's size, so that the program needs no bounds checks of its own, may
compute addresses and may use atomics on it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.kinds import ProgType
from bpfpatch.patch import Body, Linearized, PatchList
from bpfpatch.program import Program

MEMORY_TYPES: Final = (ProgType.SYSCALL, ProgType.XDP, ProgType.SOCKET_FILTER)
"""Kinds that a program on plain memory is loaded as, the first that the verifier accepts.

None of them has rules for R0; they differ in the helpers that they may call."""


def with_memory(program: Program, memory_fd: int | None, size: int, result_fd: int) -> Linearized:
    """The program with memory to start with, and R0 stored at its end.

    Args:
        program: flat; its first subprog is the main function.
        memory_fd: descriptor of the array that is the memory, None where that is empty.
        size: of the memory.
        result_fd: descriptor of the array whose element of 8 bytes gets R0.
    """
    patches = PatchList(program)
    first = patches.nodes()[0]
    kind = isa.Pseudo.MAP_VALUE
    start = isa.mov(1, 0) if memory_fd is None else isa.ld_imm64(1, memory_fd, src=kind)
    _store_result(patches, program, result_fd)
    # The prologue runs on entry, a jump back to the first instruction does not repeat it.
    patches.prepend(int(first), Body.of(start, isa.mov(2, size)))
    return patches.linearize()


def with_result(program: Program, result_fd: int) -> Linearized:
    """The program with R0 stored at its end, and nothing else changed.

    Args:
        program: flat; its first subprog is the main function.
        result_fd: descriptor of the array whose element of 8 bytes gets R0.
    """
    patches = PatchList(program)
    _store_result(patches, program, result_fd)
    return patches.linearize()


def _store_result(patches: PatchList, program: Program, result_fd: int) -> None:
    exits = patches.find(isa.is_exit)
    main = program.subprogs.of(exits.astype(np.int32)) == 0
    store = (
        isa.ld_imm64(1, result_fd, src=isa.Pseudo.MAP_VALUE),
        isa.store("u64", 1, 0, isa.Reg(0)),
    )
    patches.insert_before(exits[main], Body.of(*store))
