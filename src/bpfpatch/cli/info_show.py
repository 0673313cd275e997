"""What ``bpfpatch info`` prints: tables for 80 columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bpfpatch.text import plural

from .screen import echo, echo_table

WIDTH: Final = 80
_LEAST: Final = 8
"""Characters that a column which is cut off keeps."""
_NEED: Final = ("kind", "name", "cpu", "since", "count#")
_MOST_GLOBALS: Final = 20
_CUT: Final = "..."

Row = Mapping[str, Any]


def show(facts: Row, *, whole_values: bool, sections: bool, needs: bool) -> None:
    """Print what `info_json` found.

    Args:
        facts: that.
        whole_values: list all variables, and what they hold at full length.
        sections: list sections and records.
        needs: list all that a kernel must have, and not only the newest.
    """
    _head(facts)
    show_table("programs", facts["programs"], "name", "section", "type", "start#", "end#")
    columns: tuple[str, ...] = ("name", "section", "start#", "end#", "insns#", "refs#", "stack#")
    subprograms = [_subprogram(one) for one in facts["subprograms"]]
    show_table("subprograms", subprograms, *columns, cut=("section", "name"))
    columns = ("name", "type", "key", "value", "entries#", "flags")
    maps = [_map(one) for one in facts["maps"]]
    show_table("maps", maps, *columns, cut=("flags", "value", "key"), drop="flags")
    calls = [_plain(one) | {"callers": ", ".join(one["callers"])} for one in facts["calls"]]
    show_table("calls", calls, "name", "kind", "count#", "since", "callers", cut=("callers",))
    _globals(facts["globals"], whole=whole_values)
    columns = ("function", "source", "text")
    show_table("prints", [_plain(one) for one in facts["formats"]], *columns, cut=("text",))
    if sections:
        records = [{"table": name, "rows": rows} for name, rows in facts["records"].items()]
        show_table("records", records, "table", "rows#")
        show_table("sections", facts["sections"], "index#", "name", "type", "bytes#", "executable")
    _needs(facts, whole=needs)
    for problem in facts["violations"]:
        echo(f"problem: {problem}")
    for notice in facts["notices"]:
        echo(f"note: {notice}")


def _head(facts: Row) -> None:
    licence, btf, dwarf = facts["license"], facts["btf"], facts["dwarf"]
    echo(
        f"{facts['file']}: {facts['byteorder']}-endian BPF object of {facts['bytes']} bytes, "
        f"{plural(facts['insns'], 'instruction')} in {plural(facts['slots'], 'slot')}"
    )
    echo(f"licence: {'none' if licence is None else licence}")
    echo(f"needs cpu: {facts['cpu'] or 'none'}")
    echo(f"BTF: {'none' if btf is None else '{types} types'.format(**btf)}")
    described = "{sections} sections, {bytes} bytes".format(**dwarf)
    echo(f"DWARF: {described if dwarf['sections'] else 'none'}")


def _subprogram(one: Row) -> Row:
    """A subprogram; "+" where its stack may reach deeper than is seen."""
    stack = f"{one['stack']}{'' if one['stack_known'] else '+'}"
    return {**one, "stack": stack, "refs": one["references"]}


def _map(one: Row) -> Row:
    return {
        "name": one["name"],
        "type": one["type"] or "?",
        "key": short_type(one["key"]) or _size(one["key_size"]),
        "value": short_type(one["value"]) or _size(one["value_size"]),
        "entries": "" if one["max_entries"] is None else one["max_entries"],
        "flags": ", ".join(one["flags"]),
    }


def short_type(name: str | None) -> str:
    """A type's name for a table: without what its column or section says anyway."""
    for word in ("const ", "volatile ", "struct ", "union "):
        name = (name or "").removeprefix(word)
    return name or ""


def _size(size: int | None) -> str:
    return plural(size, "byte") if size else ""


def _plain(one: Row) -> dict[str, Any]:
    return {name: "" if value is None else value for name, value in one.items()}


def _globals(found: Sequence[Row], *, whole: bool) -> None:
    rows = [
        {
            **one,
            "type": one["type"] if whole else short_type(one["type"]),
            "value": _CUT if one["value"] is None else json.dumps(one["value"]),
        }
        for one in found
    ]
    shown = rows if whole else rows[:_MOST_GLOBALS]
    cut = () if whole else ("value", "type")
    show_table("globals", shown, "name", "section", "type", "bytes#", "value", cut=cut)
    if len(shown) < len(rows):
        echo(f"{len(rows) - len(shown)} more variables: see --globals")


def _needs(facts: Row, *, whole: bool) -> None:
    rows = facts.get("missing", facts["needs"])
    if "missing" in facts or whole:
        title = "missing" if "missing" in facts else "needs"
        show_table(title, [_plain(row) for row in rows], *_NEED)
        return
    newest = [row for row in rows if row["since"] == rows[0]["since"]]
    if not newest:
        return
    more = f" and {len(newest) - 1} more" if len(newest) > 1 else ""
    echo()
    first = "{since} ({kind} {name}".format(**newest[0])
    echo(f"needs kernel: {first}{more}; see --needs)")


def show_table(
    title: str, rows: Sequence[Row], *columns: str, cut: Sequence[str] = (), drop: str = ""
) -> None:
    """Print rows under a title, or nothing where there are none; "#" marks numbers.

    Args:
        title: over the table.
        rows: the rows.
        columns: of each.
        cut: columns of text that may be cut off to fit the width, the first first.
        drop: a column that is left out where that is not enough.
    """
    if not rows:
        return
    names = [name.removesuffix("#") for name in columns]
    cells = [[_cell(row[name]) for name in names] for row in rows]
    for name in cut:
        _cut(cells, names, names.index(name))
    if drop and _over(cells, names) > 0:
        left = [name for name in columns if name != drop]
        show_table(title, rows, *left, cut=[name for name in cut if name != drop])
        return
    echo()
    echo_table(title, columns, cells)


def _cut(cells: list[list[str]], names: list[str], column: int) -> None:
    """Cut a column off, so that all of them fit the width."""
    over = _over(cells, names)
    if over <= 0:
        return
    widest = max(len(row[column]) for row in cells)
    room = max(widest - over, _LEAST, len(names[column]))
    for row in cells:
        if len(row[column]) > room:
            row[column] = row[column][: room - len(_CUT)] + _CUT


def _over(cells: list[list[str]], names: list[str]) -> int:
    """How many characters a table is too wide."""
    widths = [max(map(len, one)) for one in zip(names, *cells, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1) - WIDTH


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(value)
