"""What a kernel must have for an object: instructions, helpers, kinds of maps and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.elf.link import kconfig_names
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.elf.space import RELOC_TABLE
from bpfpatch.elf.symtab import STB_WEAK
from bpfpatch.elf.values import READ_ONLY, WRITABLE, is_kind
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts import ProgType
from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.facts.kfuncs import kfunc_since
from bpfpatch.facts.since import (
    FIRST,
    MAP_TYPE_SINCE,
    PROG_TYPE_SINCE,
    STACK_ARGS_SINCE,
    Version,
    insn_since,
)
from bpfpatch.program import Program

from .inventory import kfunc_calls

STACK_ARGUMENT = "stack_argument"


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that an object needs.

    Attributes:
        kind: "insn", "helper", "kfunc", "map type" or "program type".
        name: which.
        since: the first kernel version that has it.
        count: how often it is there.
        cpu: of an instruction, the cpu version that has it; else 0.
    """

    kind: str
    name: str
    since: Version
    count: int
    cpu: int = 0


def needs(obj: ElfObject) -> list[Need]:
    """What an object needs, the newest first; kinds of maps as far as it says what they are.

    Raises:
        FormatError: the object is broken.
    """
    code = obj.code
    insns = (*_insns(code, _loaded_names(obj)), *_stack_args(code))
    calls = (*_helpers(code), *_kfuncs(obj))
    found = [*insns, *calls, *_maps(obj), *_programs(obj)]
    return sorted(found, key=lambda need: (-need.since[0], -need.since[1], need.kind, need.name))


def _insns(code: Program, loaded: dict[int, str]) -> Iterator[Need]:
    """Instructions of more than cpu v1, or that not every kernel has.

    Args:
        code: the code.
        loaded: by slot, what a loader makes of an instruction; "" for one that it may leave out.
    """
    rows = isa.rows(code.insns)
    rows[list(loaded)] = -1
    found = np.bincount(rows[rows >= 0], minlength=len(isa.OPCODES))[: len(isa.OPCODES)]
    counts = Counter({isa.OPCODES[row].name: int(found[row]) for row in np.flatnonzero(found)})
    counts.update(filter(None, loaded.values()))
    for name, count in counts.items():
        since, cpu = insn_since(name), isa.BY_NAME[name].cpu
        if cpu > 1 or since > FIRST:
            yield Need("insn", name, since, count, cpu)


def _loaded_names(obj: ElfObject) -> dict[int, str]:
    """Of instructions with relocations, what libbpf makes of them, where a kernel may lack that."""
    code = obj.code
    calls = isa.is_call(code.insns)
    kconfig = kconfig_names(obj.btf)
    table = code.tables[RELOC_TABLE]
    out = {}
    for slot, sym in zip(table.insn.tolist(), table.rows["sym"].tolist(), strict=True):
        symbol = obj.symbols[sym]
        is_extern = symbol.section == 0
        if is_extern and calls[slot]:
            out[slot] = "" if symbol.bind == STB_WEAK else "call_kfunc"
        elif symbol.name in kconfig if is_extern else _is_data(obj, symbol.section):
            out[slot] = "ld_map_value"
    return out


def _is_data(obj: ElfObject, section: int) -> bool:
    if section >= len(obj.raw.names):
        return False
    return any(is_kind(obj.raw.names[section], base) for base in (READ_ONLY, *WRITABLE))


def _stack_args(code: Program) -> Iterator[Need]:
    count = np.count_nonzero(isa.stack_args(code.insns))
    if count:
        yield Need("insn", STACK_ARGUMENT, STACK_ARGS_SINCE, int(count))


def _helpers(code: Program) -> Iterator[Need]:
    calls = code.insns[isa.is_helper_call(code.insns)]
    for number, count in Counter(calls["imm"].tolist()).items():
        if number in HELPER_PROTOS:
            yield Need("helper", isa.HELPERS[number], HELPER_PROTOS[number].since, count)


def _kfuncs(obj: ElfObject) -> Iterator[Need]:
    for name, count in Counter(name for _, name in kfunc_calls(obj)).items():
        since = kfunc_since(name)
        if since is not None:
            yield Need("kfunc", name, since, count)


def _maps(obj: ElfObject) -> Iterator[Need]:
    try:
        kinds = Counter(one.type for one in map_definitions(obj))
    except UnsupportedError:  # without types nothing says what the maps are
        return
    for kind, count in kinds.items():
        if kind in MAP_TYPE_SINCE:
            yield Need("map type", kind.text, MAP_TYPE_SINCE[kind], count)


def _programs(obj: ElfObject) -> Iterator[Need]:
    names = Counter(program.type for program in obj.programs if program.type)
    for name, count in names.items():
        known = ProgType.__members__.get(name.upper())
        if known is not None and known in PROG_TYPE_SINCE:
            yield Need("program type", name, PROG_TYPE_SINCE[known], count)


__all__ = ["Need", "needs"]
