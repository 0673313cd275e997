"""What one edit costs: by handle from a Python loop, and in bulk, in programs of three lengths."""

from __future__ import annotations

import statistics
import time
from typing import Final

from bpfpatch.patch import PatchList

from . import child
from .limit import body
from .programs import immediates
from .report import Line, Outcome, Plot, Table

LENGTHS: Final = (10_000, 100_000, 1_000_000)
ONCE: Final = ("by_handle", 1_000_000)
"""What takes longer than all the others together is measured once."""


def by_node(n_insns: int) -> dict[str, float]:
    """One instruction in front of each, one edit at a time."""
    patches = PatchList(immediates(n_insns))
    insert, one = patches.insert_before, body(1)
    began = time.perf_counter()
    for node in range(n_insns):
        insert(node, one)
    edited = time.perf_counter()
    patches.linearize()
    return _found(n_insns, edited - began, time.perf_counter() - edited)


def by_handle(n_insns: int) -> dict[str, float]:
    """The same, in a loop over the list's own handles that looks at each instruction."""
    patches = PatchList(immediates(n_insns))
    one = body(1)
    began = time.perf_counter()
    for insn in patches:
        if not insn.is_exit:
            patches.insert_before(insn, one)
    edited = time.perf_counter()
    patches.linearize()
    return _found(n_insns, edited - began, time.perf_counter() - edited)


def in_bulk(n_insns: int) -> dict[str, float]:
    """The same, as one edit of all sites."""
    patches = PatchList(immediates(n_insns))
    began = time.perf_counter()
    patches.insert_before(patches.nodes(), body(1))
    edited = time.perf_counter()
    patches.linearize()
    return _found(n_insns, edited - began, time.perf_counter() - edited)


def _found(n_insns: int, edits: float, linearize: float) -> dict[str, float]:
    return {"edit_ns": 1e9 * edits / n_insns, "linearize_ns": 1e9 * linearize / n_insns}


WAYS: Final = {
    "by_node": "one at a time, by node number",
    "by_handle": "one at a time, in a loop over handles that asks each what it is",
    "in_bulk": "one edit of all sites",
}


def measure(runs: int) -> Outcome:
    """All ways and lengths."""
    out = Outcome()
    rows, lines = [], []
    for way, what in WAYS.items():
        points = []
        for n_insns in LENGTHS:
            many = 1 if (way, n_insns) == ONCE else runs
            found = child.figures(many, f"handles.{way}", n_insns)
            out.figures[f"{way} {n_insns}"] = found
            rows.append((what, f"{n_insns:,}", found["edit_ns"], found["linearize_ns"]))
            points.append((n_insns, statistics.median(found["edit_ns"])))
        lines.append(Line(what, points))
    header = ("an instruction in front of each", "instructions", "ns an edit", "linearize, ns")
    out.tables.append(Table("One edit", header, rows))
    out.plots.append(
        Plot("handles", "What one edit costs", "instructions", "ns an edit", tuple(lines))
    )
    return out
