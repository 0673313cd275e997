"""Source files, line by line, with the instructions that each became."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from markupsafe import Markup

from ..counts import Branch
from ..model import FileCoverage
from ..pieces import LinePiece, state
from ..terminal import MANY_BRANCHES, branch_groups
from ..totals import CoverTally, of_file, sides
from ..words import shown_path, times
from .content import CLASSES, Content, InsnsView, Share, Side, sides_of
from .highlight import Highlighter

_CHUNK: Final = 200
"""Rows that a browser lays out together, once they come into sight."""
_WHOLE: Final = 20_000
"""A file of more lines is shown around those that have code only: say, a kernel's types."""
_AROUND: Final = 25


class BranchView(NamedTuple):
    """What stands beside a line of a branch in it: the function, both ways, or a summary."""

    function: str
    sides: tuple[Side, ...]
    text: str


class PieceView(NamedTuple):
    """Instructions that a line became: the function where a new one starts, whether they ran."""

    function: str
    is_missing: bool
    insns: list[InsnsView]


class RowView(NamedTuple):
    """One row: a line, or a gap.

    Attributes:
        number: of the line; 0 for a gap.
        kind: class of the row, "" for a line without code.
        times: how often it ran.
        branches: what its jumps did.
        text: the source; of a gap how much is not shown.
        is_insn: whether the text is an instruction for lack of source.
        pieces: the instructions that it became.
    """

    number: int
    kind: str
    times: str
    branches: list[BranchView]
    text: str
    is_insn: bool
    pieces: list[PieceView]


class FileView(NamedTuple):
    """One file: what holds for all of it, and its rows in portions."""

    number: int
    name: str
    is_open: bool
    lines: Share
    branches: Share
    functions: Share
    n_missing: int
    chunks: Iterator[list[RowView]]


def file_view(
    content: Content, number: int, file: FileCoverage, highlighter: Highlighter, *, is_open: bool
) -> FileView:
    """One file; its rows are worked out when they are taken."""
    totals = of_file(file)
    return FileView(
        number,
        shown_path(file.path),
        is_open,
        Share.of(totals.lines),
        Share.of(totals.branches),
        Share.of(totals.functions),
        totals.lines.total - totals.lines.hit,
        _chunks(_rows(content, file, highlighter)),
    )


def _chunks(rows: Iterator[RowView]) -> Iterator[list[RowView]]:
    chunk: list[RowView] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _rows(content: Content, file: FileCoverage, highlighter: Highlighter) -> Iterator[RowView]:
    source = content.sources.of(file)
    text: Mapping[int, str] = source.lines
    shown = _shown_lines(text, file)
    marked = highlighter.lines(source.name, text, shown)
    before = 0
    for line in shown:
        if line != before + 1:
            n_lines = line - before - 1
            yield RowView(0, "gap", "", [], f"{n_lines} line{'s'[: n_lines > 1]}", False, [])
        before = line
        if line in file.lines:
            yield _code_row(content, file, line, marked.get(line))
        else:
            yield RowView(line, "", "", [], marked[line], False, [])


def _shown_lines(text: Mapping[int, str], file: FileCoverage) -> list[int]:
    known = {*text, *file.lines}
    if len(text) <= _WHOLE:
        return sorted(known)
    near = {at for line in file.lines for at in range(line - _AROUND, line + _AROUND + 1)}
    return sorted(known & near)


def _code_row(
    content: Content, file: FileCoverage, line: int, text: str | Markup | None
) -> RowView:
    branches = file.branches.get(line, ())
    pieces = content.pieces.of_line.get((file.path, line), [])
    is_insn = text is None and bool(pieces)
    if is_insn:
        text = f"{content.code.text(pieces[0].start)} \u2026"
    return RowView(
        line,
        CLASSES[state(file.lines[line], pieces, branches)],
        times(file.lines[line]),
        _branches(content, branches),
        text or "",
        is_insn,
        list(_pieces(content, pieces)),
    )


def _branches(content: Content, branches: Sequence[Branch]) -> list[BranchView]:
    """What a few jumps did; of many, how much of it: the line unfolds to each of them.

    Where several functions have jumps of a line, each says whose it is.
    """
    out = []
    for name, mine in branch_groups(branches, content.owner):
        if len(mine) <= MANY_BRANCHES:
            views = [BranchView("", sides_of(one), "") for one in mine]
        else:
            tally = CoverTally.of(count for one in mine for count in sides(one))
            views = [BranchView("", (), f"{tally.hit} of {tally.total} ways")]
        views[0] = views[0]._replace(function=name)
        out += views
    return out


def _pieces(content: Content, pieces: Sequence[LinePiece]) -> Iterator[PieceView]:
    """What a line became, function by function."""
    functions = content.coverage.functions
    before = -1
    for piece in pieces:
        insns = content.insns(piece.start, piece.end, times(piece.times))
        name = functions[piece.function].name if piece.function != before else ""
        before = piece.function
        yield PieceView(name, piece.times == 0, insns)
