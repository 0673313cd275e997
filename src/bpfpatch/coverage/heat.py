"""A function's flow graph with heat, as text for graphviz."""

from __future__ import annotations

import math
from typing import Final

from bpfpatch.errors import OptionError
from bpfpatch.passes.cover.flow import OUTSIDE, Way
from bpfpatch.report import dottext

from .code import CountedCode
from .counts import BlockCount, EdgeCount, FunctionCoverage
from .model import Coverage

_MOST_SHOWN: Final = 12
"""Instructions of a block; of a longer one the first and the last."""
_COLD: Final = (255, 255, 255)
_HOT: Final = (240, 96, 64)
_STYLES: Final = {
    Way.FALL: "",
    Way.JUMP: "",
    Way.INDIRECT: ", style=dashed",
    Way.ENTER: "",
    Way.LEAVE: "",
    Way.VANISH: ", style=dotted",
}


def to_dot(coverage: Coverage, function: str) -> str:
    """A function's blocks and how often they ran, for graphviz: the hotter, the redder.

    Args:
        coverage: what ran.
        function: its name.

    Raises:
        OptionError: no function, or several, of that name.
    """
    found = [one for one in coverage.functions if one.name == function]
    if len(found) != 1:
        known = ", ".join(one.name for one in coverage.functions) or "none"
        raise OptionError(f"{len(found)} functions are called {function!r}; there are: {known}")
    one, code = found[0], CountedCode(coverage)
    most = _most(one)
    lines = [
        f"digraph {dottext.quoted(function)} {{",
        f"  label={dottext.quoted(f'{function}: called {_count(one.calls)} times')}; labelloc=t;",
        f"  {dottext.NODE}",
        f"  {dottext.EDGE}",
        "  in [shape=point]; out [shape=point];",
    ]
    lines += [_node(code, index, block, most) for index, block in enumerate(one.blocks)]
    lines += [_edge(one, edge) for edge in one.edges]
    return "\n".join([*lines, "}", ""])


def _node(code: CountedCode, index: int, block: BlockCount, most: int) -> str:
    shown = code.listed(block.start, block.end)
    head = [f"L{block.start}: {_count(block.times)} times"]
    label = dottext.label(head, [f"{slot}: {text}" for slot, text in shown], _MOST_SHOWN)
    return f'  b{index} [label={label}, fillcolor="{_color(block.times or 0, most)}"];'


def _edge(function: FunctionCoverage, edge: EdgeCount) -> str:
    source = "in" if edge.source == OUTSIDE else f"b{edge.source}"
    goal = "out" if edge.goal == OUTSIDE else f"b{edge.goal}"
    highest = _most(function)
    width = 1 + 3 * _heat(edge.times or 0, highest)
    style = f"penwidth={width:.1f}{_STYLES[edge.way]}"
    return f'  {source} -> {goal} [label="{_count(edge.times)}", {style}];'


def _count(count: int | None) -> str:
    return "?" if count is None else str(count)


def _most(function: FunctionCoverage) -> int:
    return max((block.times or 0 for block in function.blocks), default=0)


def _heat(count: int, most: int) -> float:
    """From 0 for what did not run to 1; counts spread over magnitudes, so by their logarithm."""
    return math.log1p(count) / math.log1p(most) if most else 0.0


def _color(count: int, most: int) -> str:
    heat = _heat(count, most)
    mixed = (round(a + (b - a) * heat) for a, b in zip(_COLD, _HOT, strict=True))
    return "#" + "".join(f"{one:02x}" for one in mixed)
