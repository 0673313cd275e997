"""Coverage for a terminal: a table of files, or of functions, and source with counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, Literal

from bpfpatch.text import visible

from .code import CountedCode
from .counts import Branch, FunctionCoverage
from .missing import missing
from .model import Coverage, FileCoverage
from .pieces import Pieces, State, state
from .sources import Sources
from .totals import CoverTally, Totals, of_file, of_object, sides
from .words import shortened, shown_path, times

NO_LINES: Final = "(no source line)"
_BETWEEN: Final = "  "
MANY_BRANCHES: Final = 3
"""A line of more jumps does not show each."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table.

    Attributes:
        cells: text of each.
        share: how much of what the row is about ran, from 0 to 1; None where that means nothing.
    """

    cells: tuple[str, ...]
    share: float | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns whose name ends in ``#`` are numbers."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]


def file_table(coverage: Coverage, *, has_missing: bool = False) -> Table:
    """A row for each source file, one for code without a line if there is any, and a total.

    Args:
        coverage: what ran.
        has_missing: whether to say in a last column which lines did not run.
    """
    rows = []
    rest = total = of_object(coverage)
    for path, file in coverage.files.items():
        mine = of_file(file)
        rest -= mine
        rows.append(_file_row(shown_path(path), mine, missing(file.lines)))
    if rest.branches.total or rest.functions.total:
        rows.append(_file_row(NO_LINES, rest))
    rows.append(_file_row("total", total))
    columns = ("file", "lines#", "%#", "branches#", "%#", "functions#", "blocks#", "missing")
    if has_missing:
        return Table(columns, tuple(rows))
    return Table(columns[:-1], tuple(replace(row, cells=row.cells[:-1]) for row in rows))


def fitted(table: Table, width: int) -> Table:
    """The table with shorter names in its first column, where it is wider than a terminal.

    First all lose the folder that they have in common, then the longest more from the left; some
    is left of each, so that the table may still be wider. What the last column is wider than its
    title does not count: it is text that goes on.

    Args:
        table: names in the first column.
        width: of the terminal.
    """
    widths = [
        max(len(cell) for cell in (column, *cells))
        for column, *cells in zip(table.columns, *(row.cells for row in table.rows), strict=True)
    ]
    if not table.columns[-1].endswith("#"):
        widths[-1] = len(table.columns[-1])
    room = width - sum(widths[1:]) - len(_BETWEEN) * (len(widths) - 1)
    names = [row.cells[0] for row in table.rows]
    short = shortened(names, room)
    rows = zip(short, table.rows, strict=True)
    return Table(
        table.columns, tuple(replace(row, cells=(name, *row.cells[1:])) for name, row in rows)
    )


def function_table(coverage: Coverage) -> Table:
    """A row for each function."""
    rows = []
    for one in coverage.functions:
        blocks = CoverTally.of(one.block_counts())
        ways = CoverTally.of(way for branch in one.branches for way in sides(branch))
        where = f"{shown_path(one.file)}:{one.line}" if one.line else ""
        rows.append(
            TableRow(
                (
                    visible(one.name),
                    visible(one.section),
                    where,
                    times(one.calls),
                    *_tally(blocks),
                    str(ways),
                ),
                blocks.share if blocks.total else None,
            )
        )
    columns = ("function", "section", "where", "calls#", "blocks#", "%#", "branches#")
    return Table(columns, tuple(rows))


def _file_row(name: str, totals: Totals, missed: str = "") -> TableRow:
    _, tally = totals.main
    cells = (
        name,
        *_tally(totals.lines),
        *_tally(totals.branches),
        str(totals.functions),
        str(totals.blocks),
        missed,
    )
    return TableRow(cells, tally.share if tally.total else None)


def _tally(tally: CoverTally) -> tuple[str, str]:
    return str(tally), tally.percent


Kind = Literal["head", "gap", "text"] | State


def source_listing(coverage: Coverage, sources: Sources) -> Iterator[tuple[Kind, str]]:
    """All source with counts, and code without lines block by block: (kind, text) of each line.

    Each row is a count, a line number and the line. A line that did not run has ``0`` for
    its count, one of which only a part did a ``*`` after it, and one of which that is not known
    a ``?``.
    """
    pieces, code, owners = Pieces(coverage), CountedCode(coverage), branch_owners(coverage)
    for file in coverage.files.values():
        yield "head", f"{shown_path(file.path)}:"
        yield from _source(file, sources, pieces, code, owners)
    for function in coverage.functions:
        if not function.file:
            yield "head", f"{visible(function.name)}, called {times(function.calls)} times:"
            yield from _blocks(function, code)


def _source(
    file: FileCoverage,
    sources: Sources,
    pieces: Pieces,
    code: CountedCode,
    owners: Mapping[int, str],
) -> Iterator[tuple[Kind, str]]:
    text = sources.of(file).lines
    before = 0
    for number in sorted({*text, *file.lines}):
        if number != before + 1 and before:
            yield "gap", f"{'':>14}  ..."
        before = number
        shown = visible(text.get(number, "")).rstrip()
        if number not in file.lines:
            yield "text", f"{'':>14} {number:>5}  {shown}".rstrip()
            continue
        branches = file.branches.get(number, ())
        mine = pieces.of_line.get((file.path, number), [])
        found = state(file.lines[number], mine, branches)
        mark = "*" if found == "part" else " "
        if number not in text and mine:
            shown = f"; {code.text(mine[0].start)}"
        head = f"{times(file.lines[number]):>13}{mark} {number:>5}  {shown}"
        yield found, f"{head}{_ways(branches, owners)}".rstrip()


def branch_owners(coverage: Coverage) -> dict[int, str]:
    """By a branch's slot, the name of the function that it is in."""
    return {branch.slot: visible(one.name) for one in coverage.functions for branch in one.branches}


def branch_groups(
    branches: Sequence[Branch], owners: Mapping[int, str]
) -> list[tuple[str, list[Branch]]]:
    """The branches of a line by function; without its name where all are of one."""
    groups = groupby(branches, key=lambda one: owners.get(one.slot, ""))
    found = [(name, list(mine)) for name, mine in groups]
    return found if len(found) > 1 else [("", mine) for _, mine in found]


def _ways(branches: tuple[Branch, ...], owners: Mapping[int, str]) -> str:
    """What the jumps of a line did: how often each jumped, and went on; of many, how much.

    Where several functions have jumps of a line, each says whose they are.
    """
    parts = []
    for name, mine in branch_groups(branches, owners):
        shown = [f"jump {times(one.taken)} / on {times(one.not_taken)}" for one in mine]
        if len(mine) > MANY_BRANCHES:
            tally = CoverTally.of(count for one in mine for count in sides(one))
            shown = [f"{tally.hit} of {tally.total} ways"]
        parts.append(f"{name}: {', '.join(shown)}" if name else ", ".join(shown))
    return f"  [{'; '.join(parts)}]" if parts else ""


def _blocks(function: FunctionCoverage, code: CountedCode) -> Iterator[tuple[Kind, str]]:
    """Instructions, with counts."""
    for start, end, count in function.blocks:
        kind = state(count, (), ())
        for at, (slot, text) in enumerate(code.listed(start, end)):
            shown = times(count) if not at else ""
            yield kind, f"{shown:>13}  {slot:>5}  {text}"
