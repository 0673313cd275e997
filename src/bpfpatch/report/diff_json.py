"""A diff as JSON."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .diff import NO_SLOT, Diff, FunctionDiff, Op
from .diff_text import WORDS
from .lines import DiffLines, LineKind, Lines

Shown = dict[str, Any]


def diff_json(diff: Diff) -> dict[str, Any]:
    """What ``json.dumps`` takes; see `Diff.to_json`."""
    functions = list(diff.functions)
    of_function: list[list[Shown]] = [[] for _ in functions]
    at = -1
    for lines in DiffLines(diff, 0, functions).portions():
        heads = lines.of(LineKind.HEAD)
        bounds = [0, *heads.tolist(), lines.kind.size]
        changes = _changes(lines)
        cuts = np.searchsorted(changes, bounds).tolist()
        shown = _shown(lines, changes)
        for which, (first, end) in zip(
            [at, *lines.old[heads].tolist()], pairwise(cuts), strict=True
        ):
            if end > first:
                of_function[which] += shown[first:end]
            at = which
    return {
        "equal": diff.is_equal,
        "added": diff.count(Op.ADDED),
        "removed": diff.count(Op.REMOVED),
        "changed": diff.count(Op.CHANGED),
        "functions": [
            _function_json(function, lines)
            for function, lines in zip(functions, of_function, strict=True)
        ],
    }


def _function_json(function: FunctionDiff, lines: list[Shown]) -> Shown:
    return {
        "name": function.name,
        "section": function.section,
        "status": function.status,
        "old": None if function.old is None else list(function.old),
        "new": None if function.new is None else list(function.new),
        "added": function.count(Op.ADDED),
        "removed": function.count(Op.REMOVED),
        "changed": function.count(Op.CHANGED),
        "lines": lines,
    }


def _changes(lines: Lines) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Where lines are that a diff's JSON has."""
    return np.flatnonzero((lines.kind == LineKind.REMOVED) | (lines.kind == LineKind.ADDED))


def _shown(lines: Lines, where: np.ndarray[tuple[int], np.dtype[np.intp]]) -> list[Shown]:
    columns = (WORDS[lines.kind], lines.old, lines.new, lines.text, lines.note)
    return [
        {
            "kind": kind,
            "old": None if old == NO_SLOT else old,
            "new": None if new == NO_SLOT else new,
            "text": text,
            "pass": note or None,
        }
        for kind, old, new, text, note in zip(
            *(column[where].tolist() for column in columns), strict=True
        )
    ]
