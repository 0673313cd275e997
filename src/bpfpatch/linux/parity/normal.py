"""Both sides of a comparison in one form: what only one machine can know is given a name.

=================== ===================================== ================================
instruction         the kernel has                        we have
=================== ===================================== ================================
helper call         an address: its names in              the helper's number
                    /proc/kallsyms, and by `names` the
                    helper's number
other call          an address: the name                  a number of `facts.function`
kfunc call          an address: the name, and its id in   the id
                    the kernel's BTF
map's ld_imm64      the map's id: which one of the        column ``ld_map``
                    subject's
subprog call,       index and distance of a subprog       the distance
PSEUDO_FUNC
kernel's address    the address                           0: see `addresses`
probing load        a plain one: bpf(2) shows it so       the probing one
address of, or call a distance that leads past the code's end ``r = 0 ll``, or ``r0 = 0``
to, what is gone
=================== ===================================== ================================

Everything else stays as it is, byte for byte.

Source: linux v6.18, kernel/bpf/syscall.c, bpf_insn_prepare_dump().
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import facts, isa
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.bpf.xlated import XlatedProgram
from bpfpatch.btf import Func, Kind, Var
from bpfpatch.facts import LD_MAP, NONE, ProgType, Subject
from bpfpatch.facts.kinds import MapType
from bpfpatch.program import Program
from bpfpatch.program.types import Slots

from .masks import unmask
from .names import helpers_of

MAP_UNKNOWN: Final = -1
_UNKNOWN_CALL: Final = 1 << 24

# What a load or store that may fault is shown as.
# Source: linux v6.18, kernel/bpf/syscall.c, bpf_insn_prepare_dump().
_MODE: Final = 0xE0
_PAGE: Final = 4096
_MEM: Final = 0x60
_PROBE_MEM: Final = 0x20
_PROBE_MEM32: Final = 0xA0
_LDX, _ST, _STX = 1, 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """One side of a comparison.

    Attributes:
        program: in the common form.
        names: by slot, the map or function that an instruction refers to.
    """

    program: Program
    names: Mapping[int, str]


def normal_ours(program: Program, subject: Subject) -> Normal:
    """What a pipeline made, in the common form.

    Args:
        program: with the column ``ld_map``.
        subject: whose maps the column counts.
    """
    insns = unmask(program.insns)
    names: dict[int, str] = {}
    _dump_probes(insns)
    for slot in np.flatnonzero(isa.is_kfunc_call(insns)).tolist():
        name = _type_name(int(insns["imm"][slot]))
        insns["imm"][slot] = _kfunc_id(frozenset({name}))
        names[slot] = name
    for slot in np.flatnonzero(isa.is_helper_call(insns)).tolist():
        name_of = facts.function_name(int(insns["imm"][slot]))
        if name_of is not None:
            names[slot] = name_of
    src = isa.src(insns)
    wide = np.flatnonzero(isa.is_ld_imm64(insns))
    is_map = np.isin(src[wide], isa.MAP_PSEUDOS)
    maps = wide[is_map]
    column = program.columns.get(LD_MAP)
    if column is not None and maps.size:
        _set_maps(insns, maps, column.values[maps], subject, names)
    return Normal(replace(program, insns=insns), names)


def normal_theirs(xlated: XlatedProgram, subject: Subject, map_ids: NDArray[np.int64]) -> Normal:
    """What the kernel made, in the common form.

    Args:
        xlated: as it was read back.
        subject: what the kernel was given.
        map_ids: (k,) the kernel's number of each of the subject's maps.
    """
    insns = unmask(xlated.program.insns)
    names: dict[int, str] = {}
    is_kfunc = isa.is_kfunc_call(insns)
    for slot, found in xlated.call_names.items():
        if is_kfunc[slot]:
            insns["imm"][slot] = _kfunc_id(found)
            names[slot] = "|".join(sorted(found))
            continue
        insns["imm"][slot], name = _call_number(found, subject)
        if name:
            names[slot] = name
    index_of = {int(number): index for index, number in enumerate(map_ids.tolist())}
    maps = np.flatnonzero(xlated.map_ids != NONE)
    indices = np.array([index_of.get(i, NONE) for i in xlated.map_ids[maps].tolist()], np.int32)
    _set_maps(insns, maps, indices, subject, names)
    _set_arenas(insns, subject, names)
    _keep_odd_calls(insns, xlated)
    dangling = _without_gone(insns, xlated.program.external)
    return Normal(replace(xlated.program, insns=insns, external=dangling), names)


def _set_maps(
    insns: NDArray[Any],
    slots: NDArray[Any],
    indices: NDArray[Any],
    subject: Subject,
    names: dict[int, str],
) -> None:
    """Put the index of its map into each ld_imm64 of one."""
    insns["imm"][slots] = indices
    is_value = np.isin(isa.src(insns)[slots], (isa.Pseudo.MAP_VALUE, isa.Pseudo.MAP_IDX_VALUE))
    src = np.where(is_value, isa.Pseudo.MAP_VALUE, isa.Pseudo.MAP_FD)
    insns["regs"][slots] = insns["regs"][slots] & 0xF | src.astype(np.uint8) << 4
    for slot, index in zip(slots.tolist(), indices.tolist(), strict=True):
        if 0 <= index < len(subject.maps):
            names[slot] = subject.maps[index].name


def _set_arenas(insns: NDArray[Any], subject: Subject, names: dict[int, str]) -> None:
    """Put the index of the arena into each ld_imm64 of an address in one.

    Of a variable in an arena the kernel shows the address that user space has for it.

    Source: linux v6.18, kernel/bpf/arena.c, arena_map_direct_value_addr().
    """
    arenas = [
        (index, one.address, one.address + one.max_entries * _PAGE)
        for index, one in enumerate(subject.maps)
        if one.type is MapType.ARENA and one.address
    ]
    if not arenas:
        return
    for slot in np.flatnonzero(isa.is_ld_imm64(insns) & (isa.src(insns) == 0)).tolist():
        low, high = (int(half) & 0xFFFF_FFFF for half in insns["imm"][slot : slot + 2])
        address = high << 32 | low
        for index, start, end in arenas:
            if start <= address < end:
                insns["imm"][slot], insns["imm"][slot + 1] = index, address - start
                insns["regs"][slot] = insns["regs"][slot] & 0xF | isa.Pseudo.MAP_VALUE << 4
                names[slot] = subject.maps[index].name


def _dump_probes(insns: NDArray[Any]) -> None:
    """Show loads and stores that may fault as bpf(2) shows them."""
    kind, mode = insns["code"] & 7, insns["code"] & _MODE
    is_probe = (kind == _LDX) & (mode == _PROBE_MEM)
    is_probe |= np.isin(kind, (_LDX, _ST, _STX)) & (mode == _PROBE_MEM32)
    insns["code"][is_probe] = insns["code"][is_probe] & ~np.uint8(_MODE) | np.uint8(_MEM)


def _call_number(found: frozenset[str], subject: Subject) -> tuple[int, str]:
    """Our number for a called function, and its name if the number does not say it."""
    for name in sorted(found):
        if name in facts.FUNCTIONS:
            return facts.function(name), name
    helpers = helpers_of(found)
    if helpers:
        # skb_output and xdp_output are perf_event_output under another number, for tracing.
        return (max if subject.prog_type is ProgType.TRACING else min)(helpers), ""
    name = "|".join(sorted(found))
    return _UNKNOWN_CALL + hash(name) % _UNKNOWN_CALL, name or "an address without a name"


def _keep_odd_calls(insns: NDArray[Any], xlated: XlatedProgram) -> None:
    """Leave a call whose two ways to say where it goes disagree as the kernel has it."""
    raw = xlated.raw
    calls = np.flatnonzero(isa.is_subprog_call(raw))
    low = insns["imm"][calls].astype(np.int16)
    odd = calls[low != raw["off"][calls]]
    insns["off"][odd] = raw["off"][odd]


def _without_gone(insns: NDArray[Any], external: Slots) -> Slots:
    """Show what refers to a removed function, where none is left, as the pass `dce` does.

    The kernel lets such a call or address lead past the code's end. Neither is ever used.

    Returns:
        Those of the slots that lead elsewhere, and stay as they are.
    """
    is_behind = insns["imm"][external] >= len(insns) - external - 1
    for slot in external[is_behind].tolist():
        is_call = bool(isa.is_call(insns[slot : slot + 1])[0])
        dst = int(insns["regs"][slot] & 0xF)
        shown = isa.mov(isa.R0, 0) if is_call else isa.ld_imm64(dst, 0)
        insns[slot : slot + len(shown)] = shown
    kept: Slots = external[~is_behind]
    return kept


def _type_name(type_id: int) -> str:
    found = vmlinux_btf().type(type_id)
    return found.name if isinstance(found, (Func, Var)) else ""


@cache
def _kfunc_id(names: frozenset[str]) -> int:
    """The least type id of a function of one of these names; MAP_UNKNOWN where there is none."""
    btf = vmlinux_btf()
    ids = [int(found) for name in names for found in btf.find(name, Kind.FUNC)]
    return min(ids, default=MAP_UNKNOWN)
