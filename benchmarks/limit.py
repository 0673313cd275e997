"""How near a million edits come to copying their result, which nothing can be faster than."""

from __future__ import annotations

import cProfile
import mmap
import pstats
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.passes import Pipeline, Target
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program

from . import child
from .programs import immediates
from .report import Outcome, Table

MILLION: Final = 1_000_000
Rewrite = Callable[[Program], tuple[Program, float]]
"""Gives the new program, and the milliseconds of the passes alone."""


def body(n_insns: int) -> Body:
    """``r3 = 0; r3 = 1; ...``."""
    return Body.of(*[isa.mov(isa.R3, index) for index in range(n_insns)])


def _edited(edit: Callable[[PatchList], object]) -> Rewrite:
    def rewrite(program: Program) -> tuple[Program, float]:
        patches = PatchList(program)
        edit(patches)
        return patches.linearize().program, 0.0

    return rewrite


def _scattered(patches: PatchList) -> None:
    nodes = patches.nodes()[:-1]
    chosen = np.random.default_rng(7).random(nodes.size) < 0.75
    patches.replace(nodes[chosen], body(3))


def _blinded(target: Target) -> Rewrite:
    def rewrite(program: Program) -> tuple[Program, float]:
        result = Pipeline.parse("blind").run(program, target)
        return result.program, result.report.passes[0].milliseconds

    return rewrite


CASES: Final[dict[str, tuple[str, Rewrite]]] = {
    "replace": (
        "each replaced by three",
        _edited(lambda patches: patches.replace(patches.nodes()[:-1], body(3))),
    ),
    "insert": (
        "two more in front of each",
        _edited(lambda patches: patches.insert_before(patches.nodes(), body(2))),
    ),
    "scattered": ("3 in 4, chosen at random, replaced by three", _edited(_scattered)),
    "delete": (
        "every second one deleted",
        _edited(lambda patches: patches.delete(patches.nodes()[:-1:2])),
    ),
    "blind-internal": (
        "pipeline `blind` for the kernel's own form, validated",
        _blinded(Target.internal()),
    ),
    "blind-loadable": ("pipeline `blind` for bpf(2), validated", _blinded(Target.loadable())),
}


def fresh_copy(values: NDArray[Any]) -> float:
    """Milliseconds to copy an array into memory that nobody has touched yet."""
    began = time.perf_counter()
    target = np.frombuffer(mmap.mmap(-1, values.nbytes), values.dtype)
    target[:] = values
    return 1000 * (time.perf_counter() - began)


def one(name: str) -> dict[str, float]:
    """Time, memory, and the copy's time, of one case."""
    rewrite = CASES[name][1]
    rewrite(immediates(100))  # import and compile what is made on first use
    program = immediates(MILLION)
    began = time.perf_counter()
    result, alone = rewrite(program)
    ours = 1000 * (time.perf_counter() - began)
    copy = fresh_copy(result.insns)
    size = result.insns.nbytes
    del result
    tracemalloc.start()
    rewrite(program)
    peak = tracemalloc.get_traced_memory()[1]
    return {
        "ours_ms": ours,
        "copy_ms": copy,
        "ratio": ours / copy,
        "pass_ms": alone,
        "result_mb": size / 1e6,
        "peak_ratio": peak / size,
    }


def measure(runs: int) -> Outcome:
    """All cases, in processes of their own."""
    out = Outcome()
    rows = []
    for name, (what, _) in CASES.items():
        found = out.figures[name] = child.figures(runs, "limit.one", name)
        rows.append(
            (
                what,
                found["ours_ms"],
                found["copy_ms"],
                found["ratio"],
                found["pass_ms"] if found["pass_ms"][0] else None,
                statistics.median(found["result_mb"]),
                statistics.median(found["peak_ratio"]),
            )
        )
    header = (
        "1,000,000 instructions",
        "ours, ms",
        "fresh copy of the result, ms",
        "ratio",
        "of which the pass, ms",
        "result, MB",
        "peak memory, of the result",
    )
    note = "Edits and linearize together; a pipeline also analyses, and validates its result."
    out.tables.append(Table("A million edits next to a copy", header, rows, (note,)))
    return out


def profile() -> None:
    """Print where the pipeline `blind` spends its time on a million immediates."""
    for name in ("blind-internal", "blind-loadable"):
        what, rewrite = CASES[name]
        rewrite(immediates(100))
        program = immediates(MILLION)
        profiler = cProfile.Profile()
        profiler.enable()
        rewrite(program)
        profiler.disable()
        print(what)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
