"""``bpfpatch info``: what an object holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.elf.addresses import is_debug_name
from bpfpatch.facts.since import Version
from bpfpatch.linux.versions import parse_version
from bpfpatch.program import Program, violations
from bpfpatch.report.inventory import (
    CallFact,
    MapFact,
    call_facts,
    core_problem,
    format_facts,
    map_facts,
    stack_facts,
)
from bpfpatch.report.keys import function_name
from bpfpatch.report.needs import needs

from .failure import Command, blame
from .info_show import show
from .inputs import read_object
from .loaded import check_count, inspected, list_folders, loaded_options
from .screen import echo_json

if TYPE_CHECKING:
    from bpfpatch.bpf.inspect import InspectedProgram

EPILOG: Final = """\b
Examples:
  bpfpatch info lb.o
  bpfpatch info lb.o --json | jq .maps
  bpfpatch info lb.o --kernel 5.4
  bpfpatch info lb.o --globals
  bpfpatch info --prog-id 42
  bpfpatch info --pin /sys/fs/bpf
"""

EXECUTABLE: Final = 4
"""SHF_EXECINSTR."""

_MOST_SHOWN, _MOST_WHOLE = 1 << 12, 1 << 20
"""Bytes of a variable whose value is read: a section may claim any size for its zeros."""
_TYPES: Final = {
    0: "null",
    1: "progbits",
    2: "symtab",
    3: "strtab",
    4: "rela",
    8: "nobits",
    9: "rel",
    0x6FFF4C03: "addrsig",
}
_CPUS: Final = {
    **{number: f"v{number}" for number in range(1, 5)},
    isa.CPU_NEWER: "newer than v4",
    isa.CPU_INTERNAL: "kernel-internal",
}


@click.command("info", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="[OBJ]", required=False)
@loaded_options
@click.option("--globals", "with_globals", is_flag=True, help="Show variables' values at length.")
@click.option("--sections", "with_sections", is_flag=True, help="List sections and records, too.")
@click.option("--needs", "with_needs", is_flag=True, help="List all that a kernel must have.")
@click.option("--kernel", metavar="VERSION", help="Say what this kernel lacks, such as 5.4.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all of it.")
def command(
    *,
    obj: str | None,
    prog_ids: tuple[int, ...],
    pins: tuple[str, ...],
    with_globals: bool,
    with_sections: bool,
    with_needs: bool,
    kernel: str | None,
    as_json: bool,
) -> None:
    """Say what OBJ holds: programs, maps, calls, variables and what it prints; - is stdin."""
    if list_folders(pins, as_json=as_json):
        return
    check_count([obj], prog_ids, pins, 1)
    if obj is None:
        _tell_loaded(*inspected(prog_ids, pins)[0], whole_values=with_globals, as_json=as_json)
        return
    shown, parsed = read_object(obj)
    with blame(shown):
        version = None if kernel is None else parse_version(kernel)
        facts = info_json(shown, parsed, whole_values=with_globals)
        facts |= _needs(parsed, version)
    if as_json:
        echo_json(facts)
        return
    show(facts, whole_values=with_globals, sections=with_sections, needs=with_needs)


def _tell_loaded(shown: str, found: InspectedProgram, *, whole_values: bool, as_json: bool) -> None:
    from .info_loaded import loaded_json, show_loaded  # noqa: PLC0415 - a file needs none of it

    with blame(shown):
        facts = loaded_json(shown, found)
    if as_json:
        echo_json(facts)
    else:
        show_loaded(facts, whole_values=whole_values)


def info_json(shown: str, obj: ElfObject, *, whole_values: bool = False) -> dict[str, Any]:
    """What there is to say, with the keys that docs/cli.md promises.

    Args:
        shown: how messages call the object.
        obj: the object.
        whole_values: read the values of large variables, too.

    Raises:
        FormatError: the object is broken.
    """
    code = obj.code
    wrong = violations(code)
    maps, problem = map_facts(obj)
    debug = [section for section in obj.sections if _is_debug(section.name)]
    return {
        "file": shown,
        "byteorder": obj.byteorder,
        "bytes": len(obj.to_bytes()),
        "license": obj.license,
        "cpu": _cpu(code),
        "slots": len(code),
        "insns": int((~code.second_slots).sum()),
        "valid": not wrong,
        "violations": [str(violation) for violation in wrong],
        "sections": [
            {
                "index": section.index,
                "name": section.name,
                "type": _TYPES.get(section.type, hex(section.type)),
                "bytes": section.size,
                "executable": bool(section.flags & EXECUTABLE),
            }
            for section in obj.sections
        ],
        "programs": [
            {
                "name": program.name,
                "section": program.section,
                "type": program.type,
                "start": program.start,
                "end": program.end,
            }
            for program in obj.programs
        ],
        "subprograms": _subprograms(code),
        "maps": [_map_json(one) for one in maps],
        "calls": [_call_json(one) for one in call_facts(obj)],
        "formats": [asdict(one) for one in format_facts(obj)],
        "globals": globals_json(obj, _MOST_WHOLE if whole_values else _MOST_SHOWN),
        "records": {name: len(table) for name, table in code.tables.items()},
        "btf": None if obj.btf is None else {"types": len(obj.btf)},
        "dwarf": {
            "sections": len(debug),
            "bytes": sum(section.size for section in debug),
        },
        "notices": [*obj.notices, *filter(None, (problem, core_problem(obj)))],
    }


def _needs(obj: ElfObject, kernel: tuple[int, int] | None) -> dict[str, Any]:
    """What a kernel must have, and what a certain one lacks."""
    found = needs(obj)
    rows = [
        {
            "kind": need.kind,
            "name": need.name,
            "since": _version(need.since),
            "count": need.count,
            "cpu": _CPUS.get(need.cpu),
        }
        for need in found
    ]
    out: dict[str, Any] = {"needs": rows}
    if kernel is not None:
        lacks = [need.since > kernel for need in found]
        out["missing"] = [row for row, is_lacking in zip(rows, lacks, strict=True) if is_lacking]
    return out


def globals_json(obj: ElfObject, most: int) -> list[dict[str, Any]]:
    """Global variables, with what they hold.

    Args:
        obj: the object.
        most: bytes of a variable whose value is read; of a larger one it is null.

    Raises:
        FormatError: types or symbols are broken.
    """
    return [
        {
            "name": one.name,
            "section": one.section,
            "type": one.type,
            "byte_off": one.byte_off,
            "bytes": one.size,
            "value": one.value if one.size <= most else None,
        }
        for one in obj.variables
    ]


def _map_json(one: MapFact) -> dict[str, Any]:
    found = one.definition
    return {
        "name": one.name,
        "kind": one.kind,
        "type": None if found is None else found.type.text,
        "key": one.key or None,
        "value": one.value or None,
        "key_size": None if found is None else found.key_size,
        "value_size": None if found is None else found.value_size,
        "max_entries": None if found is None else found.max_entries,
        "flags": list(one.flags),
        "since": _version(one.since),
    }


def _call_json(one: CallFact) -> dict[str, Any]:
    return {**asdict(one), "since": _version(one.since), "callers": list(one.callers)}


def _version(since: Version | None) -> str | None:
    return None if since is None else "{}.{}".format(*since)


def _is_debug(name: str) -> bool:
    base = name.removeprefix(".rela").removeprefix(".rel")
    return is_debug_name(base)


def _cpu(code: Program) -> str | None:
    """The lowest cpu version that has all instructions."""
    if not len(code):
        return None
    needed = int(isa.min_cpu(code.insns).max())
    return _CPUS.get(needed, str(needed))


def _subprograms(code: Program) -> list[dict[str, Any]]:
    subprogs = code.subprogs
    ends = subprogs.ends(len(code))
    first = np.concatenate([[0], np.cumsum(~code.second_slots)])
    calls = np.bincount(subprogs.of(code.refs.target[code.refs.is_entry]), minlength=len(subprogs))
    stack = stack_facts(code)
    return [
        {
            "name": function_name(code, index),
            "section": code.sections[int(subprogs.section[index])],
            "start": int(subprogs.start[index]),
            "end": int(ends[index]),
            "insns": int(first[ends[index]] - first[subprogs.start[index]]),
            "references": int(calls[index]),
            "stack": stack[index][0],
            "stack_known": stack[index][1],
        }
        for index in range(len(subprogs))
    ]
