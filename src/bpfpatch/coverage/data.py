"""Coverage as plain values, for JSON."""

from __future__ import annotations

from typing import Any

from .counts import Branch, FunctionCoverage
from .missing import missing
from .model import Coverage, FileCoverage
from .totals import Totals, of_file, of_object
from .words import shown_path


def to_data(coverage: Coverage) -> dict[str, Any]:
    """All that is known, as dicts and lists. Slots are those of the original object."""
    return {
        "identity": f"{coverage.cover.identity:016x}",
        "objects": [f"{one:016x}" for one in coverage.objects or (coverage.cover.identity,)],
        "counting": coverage.cover.counting,
        "notices": list(coverage.notices),
        "totals": _totals(of_object(coverage)),
        "files": [_file(file) for file in coverage.files.values()],
        "functions": [_function(one) for one in coverage.functions],
    }


def _totals(totals: Totals) -> dict[str, Any]:
    named = {
        "lines": totals.lines,
        "branches": totals.branches,
        "functions": totals.functions,
        "blocks": totals.blocks,
    }
    return {name: {"hit": tally.hit, "total": tally.total} for name, tally in named.items()}


def _file(file: FileCoverage) -> dict[str, Any]:
    lines = [
        {
            "line": number,
            "count": count,
            "branches": [_branch(branch) for branch in file.branches.get(number, ())],
        }
        for number, count in file.lines.items()
    ]
    name = shown_path(file.path)
    return {
        "file": name,
        "path": file.path,
        "totals": _totals(of_file(file)),
        "missing": missing(file.lines),
        "lines": lines,
    }


def _branch(branch: Branch) -> dict[str, Any]:
    return {"slot": branch.slot, "taken": branch.taken, "not_taken": branch.not_taken}


def _function(one: FunctionCoverage) -> dict[str, Any]:
    blocks = [
        {"start": start, "end": end, "count": count}
        for start, end, count in one.blocks
        if end > start
    ]
    return {
        "name": one.name,
        "section": one.section,
        "start": one.start,
        "end": one.end,
        "path": one.file or None,
        "line": one.line or None,
        "calls": one.calls,
        "blocks": blocks,
        "branches": [_branch(branch) for branch in one.branches],
    }
