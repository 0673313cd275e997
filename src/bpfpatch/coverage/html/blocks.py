"""Functions: a row for each, and the code of those without source lines, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bpfpatch.passes.cover import Way

from ..counts import EdgeCount, FunctionCoverage
from ..pieces import state
from ..totals import CoverTally, sides
from ..words import shown_path, times
from .content import CLASSES, JUMPED, Content, InsnsView, Share, Side


class FunctionRow(NamedTuple):
    """A function in the table of all."""

    name: str
    anchor: str
    section: str
    where: str
    calls: str
    calls_order: int
    lines: Share
    branches: Share
    blocks: Share


class LeaveView(NamedTuple):
    """Where control went from a block: a block on the page, or "" for nowhere."""

    anchor: str
    label: str
    side: Side
    text: str


class BlockView(NamedTuple):
    """A block: its class, first slot, how often it ran, its instructions, where it went."""

    kind: str
    start: int
    times: str
    insns: list[InsnsView]
    leaves: list[LeaveView]


class BlocksView(NamedTuple):
    """The code of one function."""

    name: str
    calls: str
    is_open: bool
    share: Share
    blocks: Iterator[BlockView]


def function_rows(content: Content) -> list[FunctionRow]:
    """A row for each function."""
    return [_row(content, at, one) for at, one in enumerate(content.coverage.functions)]


def _row(content: Content, number: int, one: FunctionCoverage) -> FunctionRow:
    lines = CoverTally.of(content.pieces.all_lines_of(number).values())
    ways = CoverTally.of(way for branch in one.branches for way in sides(branch))
    return FunctionRow(
        one.name,
        content.anchor.get(one.start, f"s{one.start}"),
        one.section,
        f"{shown_path(one.file)}:{one.line}" if one.line else "",
        times(one.calls),
        -1 if one.calls is None else one.calls,
        Share.of(lines),
        Share.of(ways),
        Share.of(CoverTally.of(one.block_counts())),
    )


def blocks_view(content: Content, one: FunctionCoverage, *, is_open: bool) -> BlocksView:
    """A function's code, block by block; worked out when it is taken."""
    share = Share.of(CoverTally.of(one.block_counts()))
    return BlocksView(one.name, times(one.calls), is_open, share, _blocks(content, one))


def _blocks(content: Content, one: FunctionCoverage) -> Iterator[BlockView]:
    leaving: dict[int, list[EdgeCount]] = {}
    for edge in one.edges:
        leaving.setdefault(edge.source, []).append(edge)
    for at, (start, end, count) in enumerate(one.blocks):
        if end == start:
            continue
        insns = content.insns(start, end)
        # One that ends in a conditional jump says already how often it went either way.
        is_said = end - 1 in content.branches
        leaves = [] if is_said else list(_leaves(one, leaving.get(at, [])))
        kind = CLASSES[state(count, (), ())]
        yield BlockView(kind, start, f"{times(count):>13}", insns, leaves)


def _leaves(one: FunctionCoverage, edges: list[EdgeCount]) -> Iterator[LeaveView]:
    """Where control went and how often; nothing for what goes without saying."""
    for edge in edges:
        side = Side.of(JUMPED, edge.times)
        if edge.way is Way.INDIRECT and edge.goal >= 0:
            start = one.blocks[edge.goal].start
            yield LeaveView(f"s{start}", f"L{start}", side, "")
        elif edge.way is Way.VANISH:
            yield LeaveView("", "", side, "did not come back")
