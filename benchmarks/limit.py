"""How near a million edits come to copying their result, which nothing can be faster than."""

from __future__ import annotations

import cProfile
import mmap
import pstats
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.passes import Pipeline, Target
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program

from . import child
from .programs import immediates
from .report import Line, Outcome, Plot, Table

MILLION: Final = 1_000_000
LEAST_RUNS: Final = 9
"""Of a million instructions, whatever the command line says."""
LENGTHS: Final = (10_000, 50_000, 200_000, MILLION)
Figures = dict[str, list[float]]
"""What several processes found, by name."""
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


@cache
def _chosen(n_nodes: int) -> NDArray[np.int32]:
    """Three in four of so many nodes."""
    is_chosen = np.random.default_rng(7).random(n_nodes) < 0.75
    return np.flatnonzero(is_chosen).astype(np.int32)


def _scattered(patches: PatchList) -> None:
    patches.replace(_chosen(len(patches.program) - 1), body(3))


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
    """Milliseconds to copy an array into memory of one's own that nobody has touched yet.

    A private mapping of 4 KiB pages, on any system; NumPy asks for huge ones.
    """
    began = time.perf_counter()
    memory = mmap.mmap(-1, values.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # A kernel without huge pages does not know the word.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    target = np.frombuffer(memory, values.dtype)
    target[:] = values
    return 1000 * (time.perf_counter() - began)


def numpy_copies(sizes: list[int]) -> dict[str, float]:
    """Milliseconds of ``.copy()`` of arrays of so many bytes, by that number."""
    source = np.ones(max(sizes), np.uint8)
    out, kept = {}, []
    for size in sizes:
        began = time.perf_counter()
        # What is kept is not handed out again: each copy goes to fresh memory.
        kept.append(source[:size].copy())
        out[str(size)] = 1000 * (time.perf_counter() - began)
    return out


def one(name: str, n_insns: int) -> dict[str, float]:
    """Time, memory, and the copy's time, of one case."""
    rewrite = CASES[name][1]
    rewrite(immediates(100))  # import and compile what is made on first use
    program = immediates(n_insns)
    _chosen(n_insns - 1)  # which sites is decided before the clock starts
    began = time.perf_counter()
    result, alone = rewrite(program)
    ours = 1000 * (time.perf_counter() - began)
    copy = fresh_copy(result.insns)
    size = result.insns.nbytes
    del result
    out = {"ours_ms": ours, "copy_ms": copy, "ratio": ours / copy, "pass_ms": alone}
    out["result_bytes"] = size
    if n_insns == MILLION:
        tracemalloc.start()
        rewrite(program)
        out["peak_ratio"] = tracemalloc.get_traced_memory()[1] / size
    return out


def measure(runs: int) -> Outcome:
    """All cases and lengths, in processes of their own."""
    out = Outcome()
    for n_insns in LENGTHS:
        # A run whose arrays land in memory that the machine never touched takes far longer.
        many = max(runs, LEAST_RUNS) if n_insns == MILLION else runs
        found = {name: child.figures(many, "limit.one", name, n_insns) for name in CASES}
        sizes = {name: int(of["result_bytes"][0]) for name, of in found.items()}
        copies = child.figures(many, "limit.numpy_copies", sorted(set(sizes.values())))
        for name, of in found.items():
            of["numpy_ms"] = copies[str(sizes[name])]
            of["numpy_ratio"] = [a / b for a, b in zip(of["ours_ms"], of["numpy_ms"], strict=True)]
            out.figures.setdefault(name, {})[n_insns] = of
    out.tables.append(_table({name: of[MILLION] for name, of in out.figures.items()}))
    out.plots.append(
        Plot(
            "limit",
            "Edits and linearize next to copying the result",
            "instructions of the program",
            "milliseconds",
            tuple(line for name in CASES for line in _lines(name, out.figures[name])),
        )
    )
    return out


def _table(found: dict[str, Figures]) -> Table:
    rows = [
        (
            CASES[name][0],
            of["ours_ms"],
            of["copy_ms"],
            of["ratio"],
            of["numpy_ms"],
            of["numpy_ratio"],
            of["pass_ms"] if of["pass_ms"][0] else None,
            of["result_bytes"][0] / 1e6,
            statistics.median(of["peak_ratio"]),
        )
        for name, of in found.items()
    ]
    header = (
        "1,000,000 instructions",
        "ours, ms",
        "copy into fresh 4 KiB pages, ms",
        "ours / copy",
        "NumPy's `.copy()`, ms",
        "ours / NumPy's",
        "of which the pass, ms",
        "result, MB",
        "peak memory, of the result",
    )
    note = "Edits and linearize together; a pipeline also analyses, and validates its result."
    return Table("A million edits next to a copy", header, rows, (note,))


def _lines(name: str, found: dict[int, Figures]) -> Iterator[Line]:
    for label, key in (
        ("bpfpatch", "ours_ms"),
        ("copy into fresh 4 KiB pages", "copy_ms"),
        ("NumPy's .copy()", "numpy_ms"),
    ):
        points = [(n, statistics.median(of[key])) for n, of in found.items()]
        yield Line(label, points, group=CASES[name][0])


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
