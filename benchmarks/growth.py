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
from contextlib import ExitStack
from functools import partial
from typing import Final

import numpy as np

from bpfpatch import isa, kernel
from bpfpatch.analysis import aux_data
from bpfpatch.btf import Btf
from bpfpatch.errors import BpfPatchError
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
MODEL_SECONDS: Final = 60.0
SHORT: Final = 1.5
"""Seconds below which a measurement of the others is taken as often as ours."""
LONG: Final = 10.0
"""Seconds from which on one run of ours must do."""
ASKED: Final = 195_000
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


def model(name: str, n_sites: int) -> float | None:
    """Seconds to patch site by site, None over the budget."""
    kind = KINDS[name]
    insns = kind.make(n_sites)[0].insns
    began = time.perf_counter()
    for delta in kind.rounds:
        n_slots = (len(insns) - kind.n_head - 1) // n_sites
        sites = kind.n_head + n_slots * np.arange(n_sites, dtype=np.int32) + (n_slots - 1)
        done = patch_and_rescan(insns, sites, moves(1 + delta), 1.5 * MODEL_SECONDS)
        if done is None:
            return None
        insns = done
    return time.perf_counter() - began


def in_kernel(name: str, n_sites: int) -> dict[str, float] | None:
    """Seconds to load the program and its control; None where the kernel refuses."""
    kind = KINDS[name]
    if len(kind.make(n_sites)[0]) > KERNEL_MOST:
        return None
    try:
        with ExitStack() as stack:
            table = stack.enter_context(kernel.Map.create("array", 4, 8, 1))
            program, control = (_with_fd(one, table.fd) for one in kind.make(n_sites))
            if kind.has_immediates and not kind.is_hardened:
                stack.enter_context(kernel.unblinded())
            patched = _load(program, kind.is_hardened)
            return {"patched": patched, "control": _load(control, False)}
    except BpfPatchError:
        return None


def _with_fd(program: Program, fd: int) -> Program:
    insns = program.insns.copy()
    insns["imm"][(insns["code"] == isa.LD_IMM64) & ~program.second_slots] = fd
    return Program(insns)


def _load(program: Program, is_hardened: bool) -> float:
    began = time.perf_counter()
    mode: kernel.Mode = "jit+harden" if is_hardened else "jit"
    with kernel.load(program, prog_type="sched_cls", mode=mode, log_level=0):
        return time.perf_counter() - began


# ---- the rest ----------------------------------------------------------------------------------


def measure(runs: int) -> Outcome:
    """All kinds and sizes."""
    out = Outcome()
    lines: list[Line] = []
    found: dict[str, tuple[Measured, Measured, Measured]] = {}
    for name, kind in KINDS.items():
        own, analysis = _ours(name, min(runs, 3))
        rescan = _while_it_lasts(MODEL_SECONDS, runs, partial(_model, name))
        loads = _while_it_lasts(kind.seconds, runs, partial(_kernel, name))
        found[name] = own, rescan, loads
        out.figures[name] = {
            "ours": own,
            "of which analysis": analysis,
            "model": rescan,
            "kernel": loads,
        }
        out.tables.append(_table(kind, own, analysis, rescan, loads))
        lines += _lines(kind, own, rescan, loads)
    out.tables.insert(0, _summary(found))
    out.plots.append(
        Plot("growth", "Time to patch n sites of a program", "sites", "seconds", tuple(lines))
    )
    return out


def _ours(name: str, runs: int) -> tuple[Measured, Measured]:
    both: dict[int, dict[str, list[float]]] = {}
    spent = 0.0
    for n in SIZES:
        # What takes long is taken once: it is the next size that may.
        many = runs if spent * n < LONG else 1
        both[n] = child.figures(many, "growth.ours", name, n)
        spent = sum(statistics.median(values) for values in both[n].values()) / n
    total = {
        n: [sum(pair) for pair in zip(found["analysis"], found["patching"], strict=True)]
        for n, found in both.items()
    }
    return total, {n: found["analysis"] for n, found in both.items()}


def _model(name: str, n_sites: int) -> float | None:
    seconds: float | None = child.once("growth.model", name, n_sites)
    return seconds


def _kernel(name: str, n_sites: int) -> float | None:
    if kernel.available() is not None:
        return None
    found = child.once("growth.in_kernel", name, n_sites)
    return None if found is None else max(found["patched"] - found["control"], 1e-5)


def _while_it_lasts(budget: float, runs: int, once: Callable[[int], float | None]) -> Measured:
    """Measure larger and larger sizes until the next would take longer than the budget."""
    out: Measured = {}
    for n_sites in SIZES:
        if expected(middle(out), n_sites) > budget:
            break
        first = once(n_sites)
        if first is None:
            break
        out[n_sites] = [first]
        if first < SHORT:
            again = (once(n_sites) for _ in range(min(runs, 3) - 1))
            out[n_sites] += [value for value in again if value is not None]
    return out


def expected(points: dict[int, float], n_sites: int, least: float = 2.0) -> float:
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


def _table(
    kind: Kind, own: Measured, analysis: Measured, rescan: Measured, loads: Measured
) -> Table:
    rows = []
    for n in SIZES:
        ratio = statistics.median(loads[n]) / statistics.median(own[n]) if n in loads else None
        rows.append(
            (
                f"{n:,}",
                _ms(own[n]),
                _ms([statistics.median(analysis[n])]) if kind.needs_aux else None,
                rescan.get(n),
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
    return Table(f"{kind.what} (`{kind.passes}`)", header, rows)


def _ms(seconds: list[float]) -> list[float]:
    return [1000 * value for value in seconds]


def _summary(found: dict[str, tuple[Measured, Measured, Measured]]) -> Table:
    rows = []
    notes = [
        f"Exponents: time grows as n to this power; ours from {FIT_FROM:,} sites to "
        f"{SIZES[-1]:,}, the others from {KERNEL_FIT_FROM:,} to the most that was measured."
    ]
    for name, (own, rescan, loads) in found.items():
        most = max(loads, default=None)
        slopes = (
            exponent(middle(own), FIT_FROM),
            exponent(middle(rescan), KERNEL_FIT_FROM),
            exponent(middle(loads), KERNEL_FIT_FROM),
        )
        best = statistics.median(loads[most]) / statistics.median(own[most]) if most else None
        shown = [None if slope is None else f"{slope:.2f}" for slope in slopes]
        rows.append(
            (
                KINDS[name].what,
                *shown,
                1000 * statistics.median(own[SIZES[-1]]),
                best,
                f"{most:,}" if most else None,
            )
        )
        notes += _extrapolated(KINDS[name], own, middle(loads))
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


def _extrapolated(kind: Kind, own: Measured, loads: dict[int, float]) -> Iterator[str]:
    """In words, what was not measured."""
    slope = exponent(loads, KERNEL_FIT_FROM)
    if slope is None or ASKED in loads:
        return
    most = max(loads)
    seconds = loads[most] * (ASKED / most) ** slope
    ratio = seconds / statistics.median(own[ASKED])
    yield (
        f"{kind.what}: extrapolated, not measured: with that exponent the kernel would take "
        f"{number(seconds)} s for {ASKED:,} sites, {number(ratio)} times as long as ours."
    )


def _lines(kind: Kind, own: Measured, rescan: Measured, loads: Measured) -> Iterator[Line]:
    for label, points in (
        ("bpfpatch", own),
        ("patch and rescan (NumPy model)", rescan),
        ("the running kernel", loads),
    ):
        yield Line(label, middle(points), group=kind.what)
