"""Source files, line by line, with the instructions behind each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

from ..counts import Branch
from ..model import FileCoverage
from ..pieces import LinePiece, state
from ..terminal import MANY_BRANCHES
from ..totals import CoverTally, of_file, sides
from ..words import shown_path, times
from .parts import CLASSES, JUMPED, WENT_ON, Content, bar, shown, way

_CHUNK: Final = 200
"""Rows that a browser lays out together, once they come into sight."""
_WHOLE: Final = 20_000
"""A file of more lines is shown around those that have code only: say, a kernel's types."""
_AROUND: Final = 25
_COLUMNS: Final = "<col><col><col><col>"


def file_part(content: Content, number: int, file: FileCoverage, *, is_open: bool) -> Iterator[str]:
    """One file: what holds for all of it, then its lines."""
    totals = of_file(file)
    name = escape(shown_path(file.path))
    yield (
        f'<details class="file" id="f{number}"{" open" if is_open else ""}><summary><b>{name}</b>'
        f"<span>{totals.lines.percent}</span>{bar(totals.lines)}"
        f'<span class="dim">{totals.lines} lines, {totals.branches} branches</span></summary>'
    )
    rows = list(_rows(content, number, file))
    for at in range(0, len(rows), _CHUNK):
        yield f'<div class="chunk"><table class="source"><colgroup>{_COLUMNS}</colgroup><tbody>'
        yield from rows[at : at + _CHUNK]
        yield "</tbody></table></div>"
    yield "</details>"


def _rows(content: Content, number: int, file: FileCoverage) -> Iterator[str]:
    text = content.sources.of(file).lines
    before = 0
    for line in _shown_lines(text, file):
        if line != before + 1:
            yield _gap(line - before - 1)
        before = line
        head = f'<td class="n"><a href="#f{number}-{line}">{line}</a></td>'
        if line in file.lines:
            yield _code_row(content, file, line, f"f{number}-{line}", head, text)
            continue
        yield (
            f'<tr id="f{number}-{line}">{head}<td class="t"></td><td class="b"></td>'
            f'<td class="s"><span>{shown(text[line])}</span></td></tr>'
        )


def _shown_lines(text: Mapping[int, str], file: FileCoverage) -> list[int]:
    known = {*text, *file.lines}
    if len(text) <= _WHOLE:
        return sorted(known)
    near = {at for line in file.lines for at in range(line - _AROUND, line + _AROUND + 1)}
    return sorted(known & near)


def _gap(n_lines: int) -> str:
    word = "line" if n_lines == 1 else "lines"
    return f'<tr class="gap"><td colspan="4" title="{n_lines} {word}">\u2026</td></tr>'


def _code_row(
    content: Content,
    file: FileCoverage,
    line: int,
    anchor: str,
    head: str,
    text: Mapping[int, str],
) -> str:
    branches = file.branches.get(line, ())
    pieces = content.pieces.of_line.get((file.path, line), [])
    kind = CLASSES[state(file.lines[line], pieces, branches)]
    return (
        f'<tr class="{kind}" id="{anchor}">{head}<td class="t">{times(file.lines[line])}</td>'
        f'<td class="b">{_branches(branches)}</td>'
        f'<td class="s">{_unfolding(content, pieces, text.get(line))}</td></tr>'
    )


def _branches(branches: Sequence[Branch]) -> str:
    """What a few jumps did; of many, how much of it: the line unfolds to each of them."""
    if len(branches) <= MANY_BRANCHES:
        rows = (way(JUMPED, one.taken) + way(WENT_ON, one.not_taken) for one in branches)
        return "".join(f"<span>{row}</span>" for row in rows)
    tally = CoverTally.of(count for one in branches for count in sides(one))
    return f"<span>{tally.hit} of {tally.total} ways</span>"


def _unfolding(content: Content, pieces: Sequence[LinePiece], text: str | None) -> str:
    """The line; its instructions unfold."""
    if not pieces:
        return f"<span>{shown(text or '')}</span>"
    if text is None:
        first = escape(content.code.text(pieces[0].start))
        summary = f'<summary class="u">{first} \u2026</summary>'
    else:
        summary = f"<summary>{shown(text)}</summary>"
    return f"<details>{summary}<pre>{_instructions(content, pieces)}</pre></details>"


def _instructions(content: Content, pieces: Sequence[LinePiece]) -> str:
    """What a line became, function by function."""
    out = []
    functions = content.coverage.functions
    for function, mine in groupby(pieces, key=lambda piece: piece.function):
        out.append(f"<em>{shown(functions[function].name)}</em>\n")
        for piece in mine:
            rows = content.code.listed(piece.start, piece.end)
            lines = [
                f"{times(piece.times):>13}  {slot:>5}  {content.insn(slot, text)}\n"
                for slot, text in rows
            ]
            body = "".join(lines)
            is_miss = piece.times == 0
            out.append(f'<span class="m">{body}</span>' if is_miss else body)
    return "".join(out)
