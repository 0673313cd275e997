"""The page as a whole."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Final

from bpfpatch._version import __version__

from ..model import Coverage
from ..sources import Sources
from ..totals import CoverTally, of_file, of_object
from ..words import shown_path
from .blocks import block_part, function_table
from .parts import JUMPED, WENT_ON, Content, bar, shown, table
from .source import file_part

_MANY_LINES: Final = 4_000
"""With more lines than these, only the first file is open at first."""
_LEGEND: Final = f"""<div class="legend dim">
<span class="h"><span class="t">12</span> ran</span>
<span class="p"><span class="t">12</span> ran in part: some instructions, or one way of a branch, \
did not</span>
<span class="m"><span class="t">0</span> did not run</span>
<span class="q"><span class="t">?</span> not known: there was no place for a counter</span>
<span>{JUMPED}\u202f3 {WENT_ON}\u202f9: a jump was taken 3 times, and not taken 9 times</span>
<span>A line unfolds to its instructions.</span>
<span><kbd>n</kbd> <kbd>p</kbd>: next, previous line that did not run, or in part</span>
</div>"""


def to_html(coverage: Coverage, sources: Sources, title: str) -> str:
    """The page: no other file is needed to show it, and nothing is fetched.

    Args:
        coverage: what ran.
        sources: texts of the source files.
        title: what was measured.
    """
    return "\n".join(_page(Content.of(coverage, sources), title)) + "\n"


def _page(content: Content, title: str) -> Iterator[str]:
    coverage = content.coverage
    yield from _head(title)
    yield "<body>"
    yield (
        f"<header><h1>Coverage of {shown(title)}</h1>"
        '<button id="unfold" type="button" aria-pressed="false">Instructions</button>'
        '<button id="theme" type="button">Light / dark</button></header>'
    )
    for notice in (*coverage.notices, *content.sources.notices):
        yield f'<p class="notice">{shown(notice)}</p>'
    yield from _cards(coverage)
    yield "<main>"
    if coverage.files:
        yield f"<h2>Files</h2>\n{_file_table(coverage)}"
    yield f"<h2>Functions</h2>\n{function_table(content)}"
    yield from _files(content)
    yield from _blocks(content)
    yield "</main>"
    yield (
        f'<footer class="dim">Counted per block, {shown(coverage.cover.counting)}; object '
        f"<code>{coverage.cover.identity:016x}</code>; bpfpatch {escape(__version__)}</footer>"
    )
    yield f"<script>{_asset('page.js')}</script>"
    yield "</body></html>"


def _head(title: str) -> Iterator[str]:
    """The head. Nothing may run but our script: an object's text cannot, were it to get through."""
    digest = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Coverage of {shown(title)}</title><style>{_asset('page.css')}</style></head>"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _cards(coverage: Coverage) -> Iterator[str]:
    totals = of_object(coverage)
    named: tuple[tuple[str, CoverTally], ...] = (
        ("lines", totals.lines),
        ("branches", totals.branches),
        ("functions", totals.functions),
        ("blocks", totals.blocks),
    )
    yield '<div class="cards">'
    for name, tally in named:
        if tally.total:
            yield (
                f'<div class="card"><b>{tally.percent}</b>{bar(tally)}'
                f'<span class="dim">{tally.hit:,} of {tally.total:,} {name}</span></div>'
            )
    yield "</div>"


def _file_table(coverage: Coverage) -> str:
    rows = []
    for number, (path, file) in enumerate(coverage.files.items()):
        mine = of_file(file)
        rows.append(
            [
                f'<a href="#f{number}">{escape(shown_path(path))}</a>',
                str(mine.functions) if mine.functions.total else "",
                str(mine.branches) if mine.branches.total else "",
                str(mine.lines),
                mine.lines.percent,
                bar(mine.lines),
            ]
        )
    head = ("File", "Functions", "Branches", "Lines", "", "")
    return table(head, rows, is_number=lambda column: 1 <= column <= 4)


def _files(content: Content) -> Iterator[str]:
    files = content.coverage.files
    if not files:
        return
    yield f"<h2>Source</h2>\n{_LEGEND}"
    is_small = sum(len(content.sources.of(file).lines) for file in files.values()) <= _MANY_LINES
    for number, file in enumerate(files.values()):
        yield from file_part(content, number, file, is_open=is_small or not number)


def _blocks(content: Content) -> Iterator[str]:
    """Functions that have code without a source line."""
    coverage = content.coverage
    mine = [
        one
        for pieces, one in zip(content.pieces.of_function, coverage.functions, strict=True)
        if any(not piece.line for piece in pieces) or not pieces
    ]
    if not mine:
        return
    yield "<h2>Code without source lines</h2>"
    is_small = sum(one.end - one.start for one in mine) <= _MANY_LINES
    for at, one in enumerate(mine):
        yield from block_part(content, one, is_open=is_small or not at)
