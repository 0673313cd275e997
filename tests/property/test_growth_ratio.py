"""Time grows as the program does: ratios within one run, never seconds.

The sizes are small, so that this can run anywhere; `python -m benchmarks growth` goes to a million.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import growth, handles, limit, passes
from benchmarks.kinds import KINDS, with_map_column
from benchmarks.programs import SHAPES, immediates

from bpfpatch import kernel
from bpfpatch.errors import BpfPatchError

SMALL, FACTOR = 1_500, 8
# Quadratic work would grow by 64. What is allowed lies well between, for a busy machine's sake.
MOST = 3 * FACTOR
TRIES = 4
COPIES_AT_MOST = 12
"""How many times a fresh copy of the result edits and linearize may take; 2 is usual."""


@pytest.fixture(autouse=True)
def _own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other processes take of a busy machine is not counted, in the benchmarks neither."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    monkeypatch.setattr(time, "perf_counter_ns", time.process_time_ns)


def grows(small: Callable[[], object], large: Callable[[], object]) -> float:
    """How many times as long the large one takes, the best of several of each, in turns."""
    best = [float("inf"), float("inf")]
    for _ in range(TRIES):
        for at, work in enumerate((small, large)):
            began = time.perf_counter()
            work()
            best[at] = min(best[at], time.perf_counter() - began)
    return best[1] / best[0]


@pytest.mark.parametrize("name", KINDS)
def test_patching_is_linear(name):
    """Eight times as many sites of any kind take about eight times as long, analysis included."""
    kind, types = KINDS[name], None
    if kind.needs_types:
        try:
            types = kernel.vmlinux_btf()
        except BpfPatchError as error:
            pytest.skip(f"not on this kernel: no types ({error})")
    programs = [with_map_column(kind.make(n)[0]) for n in (SMALL, SMALL * FACTOR)]
    small, large = (lambda program=one: growth.patched(program, kind, types) for one in programs)
    assert grows(small, large) < MOST


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", passes.ANALYSES)
def test_analysis_is_linear(name, shape):
    """So does each analysis of eight times as long a program."""
    programs = [passes.Subjects.of(SHAPES[shape](n)) for n in (SMALL, SMALL * FACTOR)]
    analysis = passes.ANALYSES[name]
    small, large = (lambda of=one: analysis(of) for one in programs)
    assert grows(small, large) < MOST


@pytest.mark.parametrize("way", handles.WAYS)
def test_one_edit_costs_the_same_in_any_program(way):
    """An edit in a program of eight times the length takes no longer than in the short one."""
    edit = getattr(handles, way)
    found = [min(edit(n)["edit_ns"] for _ in range(TRIES)) for n in (SMALL, SMALL * FACTOR)]
    assert found[1] < MOST / FACTOR * found[0]


@pytest.mark.parametrize("name", ["replace", "insert", "scattered"])
def test_edits_are_near_a_copy(name):
    """Edits and linearize take no more than a small multiple of copying their result."""
    rewrite = limit.CASES[name][1]
    program = immediates(200_000)
    ours = copy = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        result, _ = rewrite(program)
        ours = min(ours, 1000 * (time.perf_counter() - began))
        copy = min(copy, limit.fresh_copy(result.insns))
    assert ours < COPIES_AT_MOST * copy
