"""``bpfpatch info``: what an object holds."""

from __future__ import annotations

import json
from typing import Any, Final

import click
import numpy as np

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.elf.addresses import is_debug_name
from bpfpatch.linux.versions import parse_version
from bpfpatch.program import Program, violations
from bpfpatch.report.keys import function_name
from bpfpatch.report.needs import needs

from .failure import Command, blame
from .inputs import read_object
from .screen import echo, echo_json, echo_table

EPILOG: Final = """\b
Examples:
  bpfpatch info lb.o
  bpfpatch info lb.o --json | jq .programs
  bpfpatch info lb.o --kernel 5.4
  bpfpatch info lb.o --globals
"""

_NEED: Final = ("kind", "name", "cpu", "since", "count#")
EXECUTABLE: Final = 4
"""SHF_EXECINSTR."""

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
@click.argument("obj", metavar="OBJ")
@click.option("--globals", "with_globals", is_flag=True, help="List variables and their values.")
@click.option("--kernel", metavar="VERSION", help="Say what this kernel lacks, such as 5.4.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(obj: str, *, with_globals: bool, kernel: str | None, as_json: bool) -> None:
    """Say what OBJ holds: sections, programs, subprograms, maps and records; - is stdin."""
    shown, parsed = read_object(obj)
    with blame(shown):
        version = None if kernel is None else parse_version(kernel)
        facts = info_json(shown, parsed)
        facts |= _needs(parsed, version)
        if with_globals:
            facts["globals"] = globals_json(parsed)
    if as_json:
        echo_json(facts)
        return
    _show(facts)


def info_json(shown: str, obj: ElfObject) -> dict[str, Any]:
    """What there is to say, with the keys that docs/cli.md promises.

    Raises:
        FormatError: the object is broken.
    """
    code = obj.code
    wrong = violations(code)
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
        "maps": [{"name": one.name, "kind": one.kind} for one in obj.maps],
        "records": {name: len(table) for name, table in code.tables.items()},
        "btf": None if obj.btf is None else {"types": len(obj.btf)},
        "dwarf": {
            "sections": len(debug),
            "bytes": sum(section.size for section in debug),
        },
        "notices": list(obj.notices),
    }


def _needs(obj: ElfObject, kernel: tuple[int, int] | None) -> dict[str, Any]:
    """What a kernel must have, and what a certain one lacks."""
    found = needs(obj)
    rows = [
        {
            "kind": need.kind,
            "name": need.name,
            "since": "{}.{}".format(*need.since),
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


def globals_json(obj: ElfObject) -> list[dict[str, Any]]:
    """Global variables, with what they hold.

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
            "value": one.value,
        }
        for one in obj.variables
    ]


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
    return [
        {
            "name": function_name(code, index),
            "section": code.sections[int(subprogs.section[index])],
            "start": int(subprogs.start[index]),
            "end": int(ends[index]),
            "insns": int(first[ends[index]] - first[subprogs.start[index]]),
            "references": int(calls[index]),
        }
        for index in range(len(subprogs))
    ]


def _show(facts: dict[str, Any]) -> None:
    """Print the facts as tables."""
    licence = facts["license"]
    echo(
        f"{facts['file']}: {facts['byteorder']}-endian BPF object of {facts['bytes']} bytes, "
        f"{facts['insns']} instructions in {facts['slots']} slots"
    )
    echo(f"licence: {'none' if licence is None else licence}")
    echo(f"needs cpu: {facts['cpu'] or 'none'}")
    btf = facts["btf"]
    echo(f"BTF: {'none' if btf is None else '{types} types'.format(**btf)}")
    dwarf = facts["dwarf"]
    described = "{sections} sections, {bytes} bytes".format(**dwarf)
    echo(f"DWARF: {described if dwarf['sections'] else 'none'}")
    _table("programs", facts["programs"], "name", "section", "type", "start#", "end#")
    _table(
        "subprograms",
        facts["subprograms"],
        *("name", "section", "start#", "end#", "insns#", "references#"),
    )
    _table("maps", facts["maps"], "name", "kind")
    variables = [one | {"value": json.dumps(one["value"])} for one in facts.get("globals", [])]
    _table("globals", variables, "name", "section", "type", "bytes#", "value")
    records = [{"table": name, "rows": rows} for name, rows in facts["records"].items()]
    _table("records", records, "table", "rows#")
    _table("sections", facts["sections"], "index#", "name", "type", "bytes#", "executable")
    shown = facts.get("missing", facts["needs"])
    title = "missing" if "missing" in facts else "needs"
    _table(title, [{**row, "cpu": row["cpu"] or ""} for row in shown], *_NEED)
    for problem in facts["violations"]:
        echo(f"problem: {problem}")
    for notice in facts["notices"]:
        echo(f"note: {notice}")


def _table(title: str, rows: list[dict[str, Any]], *columns: str) -> None:
    """Print rows under a title, or nothing where there are none; "#" marks numbers."""
    if not rows:
        return
    echo()
    shown = [[_cell(row[name.removesuffix("#")]) for name in columns] for row in rows]
    echo_table(title, columns, shown)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(value)
