"""Programs as text with what sits on their instructions, and edits of them as text.

A comment says what an instruction carries::

    r1 = 5          // line 7, reloc counter, aux 3

==================  ========================================================
``line N``          a line record; with any of these there is func info too
``reloc NAME``      a row that follows the instruction itself and may not lose it
``note NAME``       the same, but it goes without complaint
``case NAME``       a row that follows jumps to the instruction, as a jump table's
``aux N``           the instruction's value in a column; inserted ones have 0
==================  ========================================================
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from bpfpatch.asm import assemble, format_program, parse
from bpfpatch.patch import PatchList, Relax
from bpfpatch.program import (
    FUNC_INFO,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    Column,
    OnReplace,
    Program,
    Remap,
)

NAME = "U32"
SLOT_LINE = re.compile(r" *(\d+): ")


def program(text: str) -> Program:
    """Assemble, with the tables that the comments ask for; the first subprog is ``main``."""
    code = assemble(text)
    names = ("main", *code.subprogs.names[1:])
    code = replace(code, subprogs=replace(code.subprogs, names=names))
    marks = list(_marks(text))
    tables = {
        "reloc": _table(marks, "reloc", Anchor.OWN),
        "note": _table(marks, "note", Anchor.OWN, OnReplace.DROP),
        "case": _table(marks, "case", Anchor.LAND),
    }
    tables = {name: table for name, table in tables.items() if len(table)}
    lines = [(slot, int(value)) for slot, key, value in marks if key == "line"]
    if lines:
        rows = np.zeros(len(lines), LINE)
        rows["file_name_off"] = 1
        rows["line_col"] = np.array([line for _, line in lines]) << 10
        slots = np.array([slot for slot, _ in lines], np.int32)
        tables[LINE_INFO] = AnchoredTable(slots, rows, Anchor.ENTRY, unique=True)
        starts = code.subprogs.start
        tables[FUNC_INFO] = AnchoredTable(
            starts, np.array(code.subprogs.names, NAME), Anchor.ENTRY, unique=True
        )
    columns = {}
    values = {slot: int(value) for slot, key, value in marks if key == "aux"}
    if values:
        column = np.zeros(len(code), np.int64)
        column[list(values)] = list(values.values())
        columns["aux"] = Column(column)
    return Program(
        code.insns,
        subprogs=code.subprogs,
        tables=tables,
        columns=columns,
        strings=b"\0lb.c\0",
    )


def labels(text: str) -> SimpleNamespace:
    """The slots that a program's labels name."""
    return SimpleNamespace(**parse(text).labels)


def listing(given: Program) -> str:
    """A program as text, with its tables' rows as comments."""
    notes: dict[int, list[str]] = {}
    if LINE_INFO in given.tables:
        table = given.tables[LINE_INFO]
        for slot, line in zip(
            table.insn.tolist(), (table.rows["line_col"] >> 10).tolist(), strict=True
        ):
            notes.setdefault(slot, []).append(f"line {line}")
        table = given.tables[FUNC_INFO]
        for slot, name in zip(table.insn.tolist(), table.rows.tolist(), strict=True):
            notes.setdefault(slot, []).append(f"func {name}")
    for kind in ("reloc", "note", "case"):
        if kind in given.tables:
            table = given.tables[kind]
            for slot, name in zip(table.insn.tolist(), table.rows.tolist(), strict=True):
                notes.setdefault(slot, []).append(f"{kind} {name}")
    if "aux" in given.columns:
        for slot, value in enumerate(given.columns["aux"].values.tolist()):
            if value:
                notes.setdefault(slot, []).append(f"aux {value}")
    return "\n".join(
        _with_note(line, notes) for line in format_program(given, sources=False).splitlines()
    )


def assert_rewrite(
    before: str,
    edit: Callable[[PatchList, SimpleNamespace], object],
    after: str,
    relax: Relax | None = None,
) -> Remap:
    """Edit one program, and compare the result with another.

    Args:
        before: a program's text.
        edit: is given the list and ``before``'s labels.
        after: the text of what must come out.
        relax: what to do with far jumps.
    """
    patches = PatchList(program(before))
    edit(patches, labels(before))
    result, remap = patches.linearize(relax)
    wanted = program(after)
    assert_same_listing(listing(result), listing(wanted))
    assert result.to_bytes() == wanted.to_bytes()
    return remap


def assert_same_listing(got: str, wanted: str) -> None:
    """Fail with the difference, line by line."""
    if got != wanted:
        lines = difflib.unified_diff(
            wanted.split("\n"), got.split("\n"), "wanted", "got", lineterm=""
        )
        raise AssertionError("\n".join(lines))


def _marks(text: str):
    """(slot, key, value) of every comment on an instruction."""
    fragment = parse(text)
    slot_of = {line: slot for slot, line in reversed(list(enumerate(fragment.lines)))}
    for number, line in enumerate(text.splitlines(), 1):
        _, _, comment = line.partition("//")
        for mark in filter(None, map(str.strip, comment.split(","))):
            key, _, value = mark.partition(" ")
            yield slot_of[number], key, value


def _table(
    marks: list[tuple[int, str, str]],
    key: str,
    anchor: Anchor,
    on_replace: OnReplace = OnReplace.ERROR,
) -> AnchoredTable:
    rows = [(slot, value) for slot, kind, value in marks if kind == key]
    return AnchoredTable(
        np.array([slot for slot, _ in rows], np.int32),
        np.array([name for _, name in rows], NAME),
        anchor,
        on_replace=on_replace,
    )


def _with_note(line: str, notes: dict[int, list[str]]) -> str:
    found = SLOT_LINE.match(line)
    note = notes.get(int(found[1])) if found else None
    return f"{line}  // {', '.join(note)}" if note else line
