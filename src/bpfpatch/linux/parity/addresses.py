"""Addresses that only the kernel knows, and that it wrote into the code.

Where the pass `fixup-calls` puts one in, it has 0 in it, and the column ``address`` says whose it
is. What the kernel has there is taken over, but only if it can be that: of the same instruction,
a kernel's address, and the same one wherever the same thing is meant:

============= ====================================================================
kind          has to be the same
============= ====================================================================
JIFFIES       in all programs
CPU_NUMBER    in all programs
SYMBOL        in all programs, for one type id; no two of which may share one
PROG_AUX      in all places of one program, and in no other program
STRUCT_META   in all places of one program for one type
============= ====================================================================

No other field of the instruction, and no other instruction, is touched.

Of a blinded one the instructions `ax = ...` have the mark, and each half has to be the same. A
blinded ld_imm64 of a map has the halves of the map's address, or of a place's in its value: they
are taken over if, less the place, they make one kernel's address for all of the program's loads of
that map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.facts import LD_MAP
from bpfpatch.linux.passes.fixups import ADDRESS, Address
from bpfpatch.loader.subject import Submitted
from bpfpatch.passes import Result
from bpfpatch.program import Program

_KERNEL_HALF: Final = 1 << 63
_GLOBAL: Final = (Address.JIFFIES, Address.CPU_NUMBER, Address.SYMBOL)


# A blinded ld_imm64: ax = high; ax ^= .; ax <<= 32; reg = ax; ax = low; ax ^= .; reg |= ax
# Source: linux v6.18, kernel/bpf/core.c, bpf_jit_blind_insn().
_MOV64_IMM: Final = 0xB7
_BLINDED_LEN: Final = 7
_LOW: Final = 4

Known = dict[tuple[int, ...], int]

_known: Known = {}
"""By kind, type id and opcode, addresses or halves that are one for the whole kernel."""


def fill_addresses(ours: Program, theirs: Program, result: Result, given: Submitted) -> Program:
    """Our program, with the kernel's addresses where the column ``address`` allows it.

    Args:
        ours: in the common form.
        theirs: in the common form.
        result: what made ours.
        given: the program before.
    """
    insns = ours.insns.copy()
    _fill_blinded_maps(insns, theirs.insns, result, given)
    column = result.program.columns.get(ADDRESS)
    if column is None:
        return replace(ours, insns=insns)
    local: Known = {}
    for slot in np.flatnonzero(column.values != Address.NONE).tolist():
        kind = Address(int(column.values[slot]))
        address = _address(insns, theirs.insns, slot, kind)
        if address is None:
            continue
        known = _known if kind in _GLOBAL else local
        key = int(kind), _type_id(slot, kind, result, given), int(insns["code"][slot])
        if known.setdefault(key, address) != address:
            continue
        wide = 2 if int(insns["code"][slot]) == isa.LD_IMM64 else 1
        insns["imm"][slot : slot + wide] = theirs.insns["imm"][slot : slot + wide]
    return replace(ours, insns=insns)


def _address(ours: NDArray[Any], theirs: NDArray[Any], slot: int, kind: Address) -> int | None:
    """What the kernel has at a slot, if it can be an address of this kind."""
    is_wide = int(ours["code"][slot]) == isa.LD_IMM64
    if slot + is_wide >= len(theirs) or ours["imm"][slot]:
        return None
    if any(ours[field][slot] != theirs[field][slot] for field in ("code", "regs", "off")):
        return None
    low = int(theirs["imm"][slot]) & 0xFFFFFFFF
    if not is_wide:
        return low
    address = (int(theirs["imm"][slot + 1]) & 0xFFFFFFFF) << 32 | low
    # A per-CPU variable's is an offset into each CPU's area.
    is_kernels = address >= _KERNEL_HALF or kind in (Address.SYMBOL, Address.CPU_NUMBER)
    return address if is_kernels else None


def _type_id(slot: int, kind: Address, result: Result, given: Submitted) -> int:
    """The kernel's type id of a variable; otherwise what tells two addresses of a kind apart."""
    site = int(result.remap.site[slot])
    insns = given.program.insns
    if kind is Address.SYMBOL or isa.src(insns)[site] == isa.Pseudo.BTF_ID:
        return int(insns["imm"][site])
    return site if kind is Address.STRUCT_META else 0


def _fill_blinded_maps(
    ours: NDArray[Any], theirs: NDArray[Any], result: Result, given: Submitted
) -> None:
    """Take over the halves of maps' addresses, which blinding has taken apart."""
    before, remap = given.program, result.remap
    is_map = isa.is_pseudo(before.insns, isa.Pseudo.MAP_FD, isa.Pseudo.MAP_VALUE)
    is_first = np.append(True, remap.site[1:] != remap.site[:-1])
    starts = np.flatnonzero(is_first & is_map[remap.site] & (ours["code"] == _MOV64_IMM))
    bases: Known = {}
    for slot in starts.tolist():
        if slot + _BLINDED_LEN > min(len(ours), len(theirs)):
            continue
        site = int(remap.site[slot])
        low, high = (int(theirs["imm"][slot + at]) & 0xFFFFFFFF for at in (_LOW, 0))
        source = int(isa.src(before.insns)[site])
        byte_off = int(before.insns["imm"][site + 1]) if source == isa.Pseudo.MAP_VALUE else 0
        base = (high << 32 | low) - byte_off
        key = source, int(before.columns[LD_MAP].values[site])
        if base < _KERNEL_HALF or bases.setdefault(key, base) != base:
            continue
        ours["imm"][[slot, slot + _LOW]] = theirs["imm"][[slot, slot + _LOW]]
