"""A function's flow graph with heat: text for graphviz, and a picture where it is installed."""

from __future__ import annotations

import math
import shutil
import subprocess
from typing import Final

from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.passes.cover.flow import OUTSIDE, Way
from bpfpatch.text import visible

from .code import CountedCode
from .model import BlockCount, Coverage, EdgeCount, FunctionCoverage

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
_SECONDS: Final = 60


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
        f"digraph {_quoted(function)} {{",
        f"  label={_quoted(f'{function}: called {_count(one.calls)} times')}; labelloc=t;",
        '  node [shape=box, style=filled, fontname="monospace", fontsize=10];',
        '  edge [fontname="monospace", fontsize=9];',
        "  in [shape=point]; out [shape=point];",
    ]
    lines += [_node(code, index, block, most) for index, block in enumerate(one.blocks)]
    lines += [_edge(one, edge) for edge in one.edges]
    return "\n".join([*lines, "}", ""])


def to_svg(dot: str) -> str:
    """The picture that graphviz makes of a text.

    Raises:
        UnsupportedError: graphviz is not installed, or failed.
    """
    tool = shutil.which("dot")
    if tool is None:
        raise UnsupportedError(
            "graphviz is not installed, which makes the picture: install it, or take the dot text"
        )
    try:
        done = subprocess.run(
            [tool, "-Tsvg"],
            input=dot,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedError(
            f"graphviz took more than {_SECONDS} seconds: the function is too big for a picture"
        ) from error
    if done.returncode:
        raise UnsupportedError(f"graphviz failed: {done.stderr.strip()}")
    return done.stdout


def _node(code: CountedCode, index: int, block: BlockCount, most: int) -> str:
    shown = code.listed(block.start, block.end)
    lines = [
        f"L{block.start}: {_count(block.times)} times",
        *(f"{slot}: {text}" for slot, text in shown),
    ]
    if len(shown) > _MOST_SHOWN:
        half = _MOST_SHOWN // 2
        left_out = f"... {len(shown) - _MOST_SHOWN} more ..."
        lines = [*lines[: half + 1], left_out, *lines[-half:]]
    label = "".join(f"{_escaped(line)}\\l" for line in lines)
    return f'  b{index} [label="{label}", fillcolor="{_color(block.times or 0, most)}"];'


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


def _escaped(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
