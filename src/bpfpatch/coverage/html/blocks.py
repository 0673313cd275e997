"""Functions: a table of all, and the code of those without source lines, block by block."""

from __future__ import annotations

from collections.abc import Iterator

from bpfpatch.passes.cover import Way

from ..counts import EdgeCount, FunctionCoverage
from ..pieces import state
from ..totals import CoverTally, sides
from ..words import shown_path, times
from .parts import CLASSES, JUMPED, Content, bar, shown, table, way

_HEAD = ("Function", "Section", "Where", "Calls", "Lines", "Branches", "Blocks", "")
_NUMBERS = (3, 4, 5, 6)


def function_table(content: Content) -> str:
    """A row for each function."""
    rows = [_row(content, at, one) for at, one in enumerate(content.coverage.functions)]
    return table(_HEAD, rows, is_number=lambda column: column in _NUMBERS)


def _row(content: Content, number: int, one: FunctionCoverage) -> list[str]:
    lines = CoverTally.of(content.pieces.all_lines_of(number).values())
    blocks = _blocks(one)
    ways = CoverTally.of(way for branch in one.branches for way in sides(branch))
    where = shown(f"{shown_path(one.file)}:{one.line}") if one.line else ""
    goal = content.anchor.get(one.start, f"s{one.start}")
    return [
        f'<a href="#{goal}">{shown(one.name)}</a>',
        f"<code>{shown(one.section)}</code>",
        f'<span class="dim">{where}</span>',
        times(one.calls),
        str(lines) if lines.total else "",
        str(ways) if ways.total else "",
        str(blocks),
        bar(blocks),
    ]


def _blocks(one: FunctionCoverage) -> CoverTally:
    return CoverTally.of(one.block_counts())


def block_part(content: Content, one: FunctionCoverage, *, is_open: bool) -> Iterator[str]:
    """A function's code, block by block."""
    blocks = _blocks(one)
    yield (
        f'<details class="file"{" open" if is_open else ""}><summary><b>{shown(one.name)}</b>'
        f"<span>{blocks.percent}</span>{bar(blocks)}"
        f'<span class="dim">{blocks} blocks, called {times(one.calls)} times</span></summary>'
        '<pre class="blocks">'
    )
    leaving: dict[int, list[EdgeCount]] = {}
    for edge in one.edges:
        leaving.setdefault(edge.source, []).append(edge)
    for at, (start, end, count) in enumerate(one.blocks):
        if end > start:
            yield _block(content, one, (start, end, count), leaving.get(at, []))
    yield "</pre></details>"


def _block(
    content: Content,
    one: FunctionCoverage,
    block: tuple[int, int, int | None],
    leaving: list[EdgeCount],
) -> str:
    start, end, count = block
    gone = [text for edge in leaving if (text := _edge(one, edge))]
    lines = [
        f"{'':13}  {slot:>5}  {content.insn(slot, text)}"
        for slot, text in content.code.listed(start, end)
    ]
    # One that ends in a conditional jump says already how often it went either way.
    tail = f"   <u>{'  '.join(gone)}</u>" if gone and end - 1 not in content.branches else ""
    kind = CLASSES[state(count, (), ())]
    body = "\n".join(lines)
    return (
        f'<span class="{kind}" id="s{start}"><b>{times(count):>13}</b>  <em>L{start}:</em>\n'
        f"{body}{tail}</span>"
    )


def _edge(one: FunctionCoverage, edge: EdgeCount) -> str:
    """Where control went from a block and how often; "" for what goes without saying."""
    if edge.way is Way.INDIRECT and edge.goal >= 0:
        start = one.blocks[edge.goal].start
        return f'<a href="#s{start}">L{start}</a> {way(JUMPED, edge.times)}'
    if edge.way is Way.VANISH:
        return f"{way(JUMPED, edge.times)} did not come back"
    return ""
