"""A diff as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.text import plural

from .diff import Diff, FunctionDiff, Op
from .lines import DiffLines, LineKind, Lines

WORDS: Final = np.array([kind.word for kind in LineKind], object)
"""Names of kinds of lines, by number."""


def diff_lines(diff: Diff, context: int, *, show_all: bool) -> Iterator[tuple[str, str]]:
    """The lines of a diff, each with its kind; see `Diff.lines`."""
    for kinds, texts in diff_portions(diff, context, show_all=show_all):
        yield from zip(WORDS[kinds].tolist(), texts, strict=True)


def diff_portions(
    diff: Diff, context: int, *, show_all: bool
) -> Iterator[tuple[NDArray[np.uint8], list[str]]]:
    """The lines of a diff, some thousands at a time: (k,) kinds of `LineKind`, and k texts."""
    functions = [one for one in diff.functions if show_all or not one.is_equal]
    width = max(len(str(max(len(diff.old), len(diff.new)))), 3)
    lines = DiffLines(diff, None if show_all else context, functions)
    for portion in lines.portions():
        yield portion.kind, _texts(portion, functions, width)


def _head(function: FunctionDiff) -> str:
    place = f" in {function.section}" if function.section else ""
    return f"@@ {function.name}{place}: {describe_change(function)} @@"


def describe_change(function: FunctionDiff) -> str:
    """What became of a function, in a few words."""
    if function.old is None:
        return f"new, {plural(function.op.size, 'instruction')}"
    if function.new is None:
        return f"removed, {plural(function.op.size, 'instruction')}"
    if function.is_equal:
        return "the same"
    parts = ("+{}", Op.ADDED), ("-{}", Op.REMOVED), ("{} changed", Op.CHANGED)
    return ", ".join(text.format(function.count(op)) for text, op in parts if function.count(op))


def _texts(lines: Lines, functions: list[FunctionDiff], width: int) -> list[str]:
    margin, nothing = " " * (2 * width + 3), " " * width
    out = np.empty(lines.kind.size, object)
    heads = lines.of(LineKind.HEAD)
    out[heads] = [_head(functions[at]) for at in lines.old[heads].tolist()]
    for kind, template, *columns in (
        (LineKind.SKIPPED, f"{margin}... %s", lines.text),
        (LineKind.SOURCE, f"{margin}; %s", lines.text),
        (LineKind.LABEL, f"{margin}%s", lines.text),
        (LineKind.SAME, f" %{width}d %{width}d    %s", lines.old, lines.new, lines.text),
        (LineKind.REMOVED, f"-%{width}d {nothing}    %s", lines.old, lines.text),
        (LineKind.ADDED, f"+{nothing} %{width}d    %s%s", lines.new, lines.text, _notes(lines)),
    ):
        where = lines.of(kind)
        rows = zip(*(column[where].tolist() for column in columns), strict=True)
        out[where] = [template % row for row in rows]
    shown: list[str] = out.tolist()
    return shown


def _notes(lines: Lines) -> NDArray[np.object_]:
    """(k,) what is shown of notes behind lines."""
    shown = {note: f"  ; {note}" if note else "" for note in set(lines.note.tolist())}
    return np.array([shown[note] for note in lines.note.tolist()], object)
