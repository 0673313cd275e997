"""What a kernel must have for an object: instructions, helpers, kinds of maps and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import map_definitions
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
    insns, calls = (*_insns(code), *_stack_args(code)), (*_helpers(code), *_kfuncs(obj))
    found = [*insns, *calls, *_maps(obj), *_programs(obj)]
    return sorted(found, key=lambda need: (-need.since[0], -need.since[1], need.kind, need.name))


def _insns(code: Program) -> Iterator[Need]:
    """Instructions of more than cpu v1, or that not every kernel has."""
    rows = isa.rows(code.insns)
    counts = np.bincount(rows[rows >= 0], minlength=len(isa.OPCODES))
    for row in np.flatnonzero(counts[: len(isa.OPCODES)]).tolist():
        opcode = isa.OPCODES[row]
        since = insn_since(opcode.name)
        if opcode.cpu > 1 or since > FIRST:
            yield Need("insn", opcode.name, since, int(counts[row]), opcode.cpu)


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
