"""The core's own figures: a million patches, edits by handle, a 4 MB object.

Each run is a process of its own, so that memory is as fresh for us as for the
copy that we are compared with: a second run in one process would find its
pages mapped already.
"""

from __future__ import annotations

import json
import mmap
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program

from .synthetic import big_object

MILLION: Final = 1_000_000
Figures = dict[str, float]


def straight_line(n_insns: int) -> Program:
    """``r0 = imm``, all different, and an exit."""
    insns = np.zeros(n_insns, isa.INSN)
    insns["code"] = 0xB7
    insns["imm"] = np.arange(n_insns)
    insns["code"][-1] = 0x95
    insns["imm"][-1] = 0
    return Program(insns)


def fresh_copy(values: NDArray[Any]) -> float:
    """Milliseconds to copy an array into memory that nobody has touched yet."""
    began = time.perf_counter()
    target = np.frombuffer(mmap.mmap(-1, values.nbytes), values.dtype)
    target[:] = values
    return 1000 * (time.perf_counter() - began)


def _body(n_insns: int) -> Body:
    return Body.of(*[isa.mov(isa.R3, index) for index in range(n_insns)])


def _patch(program: Program, edit: Callable[[PatchList], object]) -> tuple[Program, float]:
    began = time.perf_counter()
    patches = PatchList(program)
    edit(patches)
    result, _ = patches.linearize()
    return result, 1000 * (time.perf_counter() - began)


def _million(edit: Callable[[PatchList], object]) -> Figures:
    _patch(straight_line(100), edit)  # import and compile what is made on first use
    program = straight_line(MILLION)
    result, ours = _patch(program, edit)
    copy = fresh_copy(result.insns)
    size = result.insns.nbytes
    del result
    tracemalloc.start()
    _patch(program, edit)
    peak = tracemalloc.get_traced_memory()[1]
    return {
        "edits + linearize, ms": ours,
        "fresh copy of the result, ms": copy,
        "ratio in time": ours / copy,
        "peak memory, MB": peak / 1e6,
        "ratio of peak to result": peak / size,
    }


def replace_each() -> Figures:
    """Each instruction replaced by three."""
    return _million(lambda patches: patches.replace(patches.nodes()[:-1], _body(3)))


def insert_each() -> Figures:
    """Two instructions in front of each."""
    return _million(lambda patches: patches.insert_before(patches.nodes(), _body(2)))


def replace_scattered() -> Figures:
    """Three quarters of the instructions, chosen at random, replaced by three."""

    def edit(patches: PatchList) -> None:
        nodes = patches.nodes()[:-1]
        chosen = np.random.default_rng(7).random(nodes.size) < 0.75
        patches.replace(nodes[chosen], _body(3))

    return _million(edit)


def handles() -> Figures:
    """One edit at a time from a Python loop, in programs of three lengths."""
    figures: Figures = {}
    for n_insns in (10_000, 100_000, MILLION):
        patches = PatchList(straight_line(n_insns))
        insert, body = patches.insert_before, _body(1)
        began = time.perf_counter()
        for node in range(n_insns):
            insert(node, body)
        spent = time.perf_counter() - began
        figures[f"an edit of {n_insns}, us"] = 1e6 * spent / n_insns
        began = time.perf_counter()
        patches.linearize()
        figures[f"linearize {n_insns}, ms"] = 1000 * (time.perf_counter() - began)
    return figures


def object_4mb() -> Figures:
    """A synthetic object of 4 MB with 60,000 relocations."""
    data = big_object(n_insns=430_000, n_relocs=60_000)
    ElfObject.parse(big_object(n_insns=1000, n_relocs=100)).to_bytes()
    began = time.perf_counter()
    obj = ElfObject.parse(data)
    _ = obj.code
    read = time.perf_counter()
    out = obj.to_bytes()
    wrote = time.perf_counter()
    assert out == data
    result = Pipeline.parse("sprinkle{every=4}").run(obj.code)
    patched = time.perf_counter()
    obj.with_code(result).to_bytes()
    rewrote = time.perf_counter()
    return {
        "size, MB": len(data) / 1e6,
        "read, ms": 1000 * (read - began),
        "no-op write, ms": 1000 * (wrote - read),
        "read + no-op write, ms": 1000 * (wrote - began),
        "sprinkle every 4th, ms": 1000 * (patched - wrote),
        "write that, ms": 1000 * (rewrote - patched),
    }


ALL: Final[dict[str, tuple[Callable[[], Figures], str]]] = {
    "replace": (replace_each, "1,000,000 instructions, each replaced by three"),
    "insert": (insert_each, "1,000,000 instructions, two more in front of each"),
    "scattered": (replace_scattered, "1,000,000 instructions, 3 in 4 replaced by three"),
    "handles": (handles, "edits one at a time, from a Python loop"),
    "object": (object_4mb, "a 4 MB object with 60,000 relocations"),
}


def measure(name: str, runs: int) -> dict[str, list[float]]:
    """Run one measurement in processes of its own; every figure of every run."""
    out: dict[str, list[float]] = {}
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.core", name], capture_output=True, check=True
        )
        for key, value in json.loads(done.stdout).items():
            out.setdefault(key, []).append(value)
    return out


def table(figures: dict[str, list[float]]) -> list[str]:
    """Median and spread of each figure, a line each."""
    width = max(len(key) for key in figures)
    return [
        f"{key:{width}}  {statistics.median(of):10.2f}   ({min(of):.2f} to {max(of):.2f})"
        for key, of in figures.items()
    ]


if __name__ == "__main__":
    print(json.dumps(ALL[sys.argv[1]][0]()))
