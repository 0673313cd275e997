"""How the time to patch n sites grows: ours, one site after the other, and the running kernel's.

Ours is everything from the program to the validated result: the analysis where
a pass needs one, the list, the pass, linearize. The model patches as kernels
do: for each site it copies the program around the new instructions and goes
over all branches. The kernel's time is BPF_PROG_LOAD of the program, less that
of its control.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from bpfpatch import isa, kernel
from bpfpatch.btf import Btf
from bpfpatch.errors import BpfPatchError
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program

from . import child
from .kinds import KINDS, Kind, subject, with_map_column
from .report import Line, Outcome, Plot, Table, number
from .rescan import moves, patch_and_rescan

SIZES: Final = (1_000, 5_000, 15_000, 45_000, 95_000, 195_000, 400_000, 1_000_000)
FIT_FROM: Final = 15_000
"""Sites from which on our own growth is fitted: below, what does not grow dominates."""
KERNEL_FIT_FROM: Final = 5_000
MOST_RUNS: Final = 3
MODEL_SECONDS: Final = 60.0
MODEL_LEAST, KERNEL_LEAST = 2.3, 2.0
"""Exponents to estimate the next size with, at least; what the model copies leaves the caches."""
SHORT: Final = 1.5
"""Seconds below which a load is taken as often as ours."""
LONG: Final = 2.0
"""Seconds from which on one run of ours must do."""
ASKED: Final = 195_000
"""Sites that the goal is about."""
KERNEL_MOST: Final = 1_000_000
"""Instructions that one program may have."""

Measured = dict[int, list[float]]
"""Seconds of each run, by the number of sites."""


# ---- what runs in a process of its own ---------------------------------------------------------


def ours(name: str, n_sites: int) -> dict[str, float]:
    """Seconds for n sites: of the analysis, and of the rest from the program to the result."""
    kind = KINDS[name]
    types = _types(kind)
    patched(with_map_column(kind.make(10)[0]), kind, types)  # import and read what is needed once
    program = with_map_column(kind.make(n_sites)[0])
    began = time.perf_counter()
    analysed = _analysed(program, kind, types)
    between = time.perf_counter()
    _run(analysed, kind, types)
    return {"analysis": between - began, "patching": time.perf_counter() - between}


def patched(program: Program, kind: Kind, types: Btf | None) -> Program:
    """What our passes make of a program, which has the column of maps."""
    return _run(_analysed(program, kind, types), kind, types)


def _types(kind: Kind) -> Btf | None:
    return kernel.vmlinux_btf() if kind.needs_types else None


def _analysed(program: Program, kind: Kind, types: Btf | None) -> Program:
    return aux_data(program, subject(), types) if kind.needs_aux else program


def _run(program: Program, kind: Kind, types: Btf | None) -> Program:
    return Pipeline.parse(kind.passes).run(program, Target.internal(btf=types), subject()).program


def model(name: str, n_sites: int) -> float | str:
    """Seconds to patch site by site, or that it was given up."""
    kind = KINDS[name]
    insns = kind.make(n_sites)[0].insns
    began = time.perf_counter()
    for delta in kind.rounds:
        n_slots = (len(insns) - kind.n_head - 1) // n_sites
        sites = kind.n_head + n_slots * np.arange(n_sites, dtype=np.int32) + (n_slots - 1)
        done = patch_and_rescan(insns, sites, moves(1 + delta), MODEL_SECONDS)
        if done is None:
            return f"{n_sites:,} took longer than {MODEL_SECONDS:.0f} s"
        insns = done
    return time.perf_counter() - began


def in_kernel(name: str, n_sites: int) -> dict[str, float] | str:
    """Seconds to load the program and its control, or why the kernel does not."""
    kind = KINDS[name]
    if len(kind.make(n_sites)[0]) > KERNEL_MOST:
        return f"{n_sites:,} are more than fit into the {KERNEL_MOST:,} that a program may have"
    try:
        with kernel.Map.create("array", 4, 8, 1) as table:
            program, control = (_with_fd(one, table.fd) for one in kind.make(n_sites))
            with kernel.harden() if kind.is_hardened else _undisturbed(kind):
                patched = _load(program)
            with _undisturbed(kind):
                return {"patched": patched, "control": _load(control)}
    except BpfPatchError as error:
        return f"{n_sites:,}: {error}"


def _undisturbed(kind: Kind) -> AbstractContextManager[None]:
    """Keep off blinding that nobody asked for here; who waits for it does so off the clock."""
    return kernel.unblinded() if kind.has_immediates else nullcontext()


def _with_fd(program: Program, fd: int) -> Program:
    insns = program.insns.copy()
    insns["imm"][(insns["code"] == isa.LD_IMM64) & ~program.second_slots] = fd
    return Program(insns)


def _load(program: Program) -> float:
    began = time.perf_counter()
    with kernel.load(program, prog_type="sched_cls", log_level=0):
        return time.perf_counter() - began


# ---- the rest ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of one kind.

    Attributes:
        kind: it.
        own: our seconds.
        analysis: those of them that the analysis took.
        rescan: the model's.
        loads: the kernel's.
        notes: why the last two end where they do.
    """

    kind: Kind
    own: Measured
    analysis: Measured
    rescan: Measured
    loads: Measured
    notes: tuple[str, ...]


def measure(runs: int) -> Outcome:
    """All kinds and sizes."""
    out = Outcome()
    every = []
    for name in KINDS:
        found = _found(name, min(runs, MOST_RUNS))
        every.append(found)
        out.figures[name] = {
            "ours": found.own,
            "of which analysis": found.analysis,
            "model": found.rescan,
            "kernel": found.loads,
        }
        out.tables.append(_table(found))
    out.tables.insert(0, _summary(every))
    lines = tuple(line for found in every for line in _lines(found))
    out.plots.append(
        Plot("growth", "Time to patch n sites of a program", "sites", "seconds", lines)
    )
    return out


def _found(name: str, runs: int) -> Found:
    kind = KINDS[name]
    own, analysis = _ours(name, runs)
    # The model is there for its exponent; the kernel is what we are compared with.
    rescan, model_end = _while_it_lasts(
        MODEL_SECONDS, 1, partial(child.once, "growth.model", name), MODEL_LEAST
    )
    loads, kernel_end = _while_it_lasts(kind.seconds, runs, partial(_kernel, name))
    notes = (f"No more of patch and rescan: {model_end}.", f"No more of the kernel: {kernel_end}.")
    return Found(kind, own, analysis, rescan, loads, notes)


def _ours(name: str, runs: int) -> tuple[Measured, Measured]:
    both: dict[int, dict[str, list[float]]] = {}
    spent = 0.0
    for n in SIZES:
        # What takes long is taken once: it is the next size that may.
        once = spent * n >= LONG or (KINDS[name].needs_aux and n == SIZES[-1])
        both[n] = child.figures(1 if once else runs, "growth.ours", name, n)
        spent = sum(statistics.median(values) for values in both[n].values()) / n
    total = {
        n: [sum(pair) for pair in zip(found["analysis"], found["patching"], strict=True)]
        for n, found in both.items()
    }
    return total, {n: found["analysis"] for n, found in both.items()}


def _kernel(name: str, n_sites: int) -> float | str:
    missing = kernel.available()
    if missing is not None:
        return str(missing)
    found = child.once("growth.in_kernel", name, n_sites)
    return found if isinstance(found, str) else max(found["patched"] - found["control"], 1e-5)


def _while_it_lasts(
    budget: float,
    runs: int,
    once: Callable[[int], float | str],
    least: float = KERNEL_LEAST,
) -> tuple[Measured, str]:
    """Measure larger and larger sizes until the next would take longer than the budget.

    Returns:
        What was measured, and why no more.
    """
    out: Measured = {}
    for n_sites in SIZES:
        seconds = expected(middle(out), n_sites, least)
        if seconds > budget:
            return (
                out,
                f"{n_sites:,} would take about {number(seconds)} s, and {budget:.0f} are allowed",
            )
        first = once(n_sites)
        if isinstance(first, str):
            return out, first
        again = (once(n_sites) for _ in range(runs - 1 if first < SHORT else 0))
        out[n_sites] = [first, *(value for value in again if not isinstance(value, str))]
    return out, "there are no more sizes"


def expected(points: dict[int, float], n_sites: int, least: float) -> float:
    """Seconds at a size from the last two before it, with this exponent at least."""
    if len(points) < 2:
        return 0.0
    (n_a, a), (n_b, b) = list(points.items())[-2:]
    slope = max(least, math.log(b / a) / math.log(n_b / n_a))
    return b * math.pow(n_sites / n_b, slope)


def middle(measured: Measured) -> dict[int, float]:
    """The median of each size."""
    return {n: statistics.median(values) for n, values in measured.items() if values}


def exponent(points: dict[int, float], least: int) -> float | None:
    """The slope of log time over log n, fitted to the sizes from ``least`` on."""
    rows = [(math.log(n), math.log(t)) for n, t in points.items() if n >= least and t > 0]
    if len(rows) < 2:
        return None
    slope, _ = statistics.linear_regression(*zip(*rows, strict=True))
    return slope


def _table(found: Found) -> Table:
    kind, own, loads = found.kind, found.own, found.loads
    rows = []
    for n in SIZES:
        ratio = statistics.median(loads[n]) / statistics.median(own[n]) if n in loads else None
        rows.append(
            (
                f"{n:,}",
                _ms(own[n]),
                _ms([statistics.median(found.analysis[n])]) if kind.needs_aux else None,
                found.rescan.get(n),
                loads.get(n),
                ratio,
            )
        )
    header = (
        "sites",
        "ours, ms",
        "of which analysis",
        "patch and rescan, s",
        "kernel, s",
        "kernel / ours",
    )
    return Table(f"{kind.what} (`{kind.passes}`)", header, rows, found.notes)


def _ms(seconds: list[float]) -> list[float]:
    return [1000 * value for value in seconds]


def _summary(every: list[Found]) -> Table:
    rows = []
    notes = [
        "Exponents: time grows as n to this power; ours from "
        f"{FIT_FROM:,} sites to {SIZES[-1]:,}, the others from {KERNEL_FIT_FROM:,} to the most "
        "that was measured."
    ]
    for found in every:
        own, loads = found.own, middle(found.loads)
        most = max(loads, default=None)
        slopes = (
            exponent(middle(own), FIT_FROM),
            exponent(middle(found.rescan), KERNEL_FIT_FROM),
            exponent(loads, KERNEL_FIT_FROM),
        )
        shown = [None if slope is None else f"{slope:.2f}" for slope in slopes]
        rows.append(
            (
                found.kind.what,
                *shown,
                1000 * statistics.median(own[SIZES[-1]]),
                loads[most] / statistics.median(own[most]) if most else None,
                f"{most:,}" if most else None,
            )
        )
        asked = at_asked(loads)
        if asked is not None:
            ratio = asked.seconds / statistics.median(own[ASKED])
            notes.append(
                f"{found.kind.what}, {ASKED:,} sites, {asked.how}: the kernel "
                f"{asked.verb} {number(asked.seconds)} s, {number(ratio)} times as long as ours."
            )
    header = (
        "kind of patch",
        "exponent: ours",
        "patch and rescan",
        "kernel",
        "ours, 1,000,000 sites, ms",
        "kernel / ours",
        "at sites",
    )
    return Table("Growth", header, rows, tuple(notes))


@dataclass(frozen=True, slots=True)
class Asked:
    """The kernel's time for as many sites as the goal is about.

    Attributes:
        seconds: it.
        how: how it is known, in words.
        verb: what a sentence about it says.
    """

    seconds: float
    how: str
    verb: str


def at_asked(loads: dict[int, float]) -> Asked | None:
    """What was measured there or else, from the exponent, what is to be expected."""
    if ASKED in loads:
        return Asked(loads[ASKED], "measured", "takes")
    slope = exponent(loads, KERNEL_FIT_FROM)
    if slope is None:
        return None
    most = max(loads)
    seconds = loads[most] * (ASKED / most) ** slope
    return Asked(
        seconds, f"extrapolated from {most:,} with that exponent, not measured", "would take"
    )


def _lines(found: Found) -> Iterator[Line]:
    for label, points in (
        ("bpfpatch", found.own),
        ("patch and rescan (NumPy model)", found.rescan),
        ("the running kernel", found.loads),
    ):
        yield Line(label, middle(points).items(), group=found.kind.what)
