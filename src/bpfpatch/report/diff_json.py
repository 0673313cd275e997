"""A diff as JSON."""

from __future__ import annotations

from typing import Any

from .diff import Diff, FunctionDiff, Op
from .lines import DiffLines


def diff_json(diff: Diff) -> dict[str, Any]:
    """What ``json.dumps`` takes; see `Diff.to_json`."""
    lines = DiffLines(diff, 0)
    return {
        "equal": diff.is_equal,
        "added": diff.count(Op.ADDED),
        "removed": diff.count(Op.REMOVED),
        "changed": diff.count(Op.CHANGED),
        "functions": [_function_json(function, lines) for function in diff.functions],
    }


def _function_json(function: FunctionDiff, lines: DiffLines) -> dict[str, Any]:
    return {
        "name": function.name,
        "section": function.section,
        "status": function.status,
        "old": None if function.old is None else list(function.old),
        "new": None if function.new is None else list(function.new),
        "added": function.count(Op.ADDED),
        "removed": function.count(Op.REMOVED),
        "changed": function.count(Op.CHANGED),
        "lines": [
            {
                "kind": line.kind,
                "old": None if line.old < 0 else line.old,
                "new": None if line.new < 0 else line.new,
                "text": line.text,
                "pass": line.note or None,
            }
            for line in lines.of(function)
            if line.kind in ("added", "removed")
        ],
    }
