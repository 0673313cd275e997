"""A diff as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .diff import Diff, FunctionDiff, Op
from .lines import DiffLines, Line

_SIGN: Final = {"same": " ", "removed": "-", "added": "+"}


def diff_lines(diff: Diff, context: int, *, show_all: bool) -> Iterator[tuple[str, str]]:
    """The lines of a diff, each with its kind; see `Diff.lines`."""
    width = max(len(str(max(len(diff.old), len(diff.new)))), 3)
    lines = DiffLines(diff, None if show_all else context)
    for function in diff.functions:
        if function.is_equal and not show_all:
            continue
        yield "head", _head(function)
        for line in lines.of(function):
            yield line.kind, _text(line, width)


def _head(function: FunctionDiff) -> str:
    place = f" in {function.section}" if function.section else ""
    return f"@@ {function.name}{place}: {describe_change(function)} @@"


def describe_change(function: FunctionDiff) -> str:
    """What became of a function, in a few words."""
    if function.old is None:
        return f"new, {function.op.size} instructions"
    if function.new is None:
        return f"removed, {function.op.size} instructions"
    if function.is_equal:
        return "the same"
    parts = ("+{}", Op.ADDED), ("-{}", Op.REMOVED), ("{} changed", Op.CHANGED)
    return ", ".join(text.format(function.count(op)) for text, op in parts if function.count(op))


def _text(line: Line, width: int) -> str:
    margin = " " * (2 * width + 3)
    if line.kind == "source":
        return f"{margin}; {line.text}"
    if line.kind == "label":
        return f"{margin}{line.text}"
    if line.kind == "skipped":
        return f"{margin}... {line.text}"
    old = "" if line.old < 0 else str(line.old)
    new = "" if line.new < 0 else str(line.new)
    note = f"  ; {line.note}" if line.note else ""
    return f"{_SIGN[line.kind]}{old:>{width}} {new:>{width}}    {line.text}{note}"
