"""Each pass and each analysis by the length of the program, next to the kernel's own load."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from bpfpatch import kernel
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.constants import Constants
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness, upper_halves_read
from bpfpatch.dataflow.reach import reachable
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.errors import BpfPatchError
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.passes import Pipeline, Target
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import Program, validate
from bpfpatch.program.types import Slots

from . import child
from .growth import exponent, middle
from .kinds import subject, with_map_column
from .programs import SHAPES
from .report import Line, Outcome, Plot, Table

SIZES: Final = (1_000, 20_000, 200_000, 1_000_000)
FIT_FROM: Final = 20_000
MOST_RUNS: Final = 3
ONCE_FROM: Final = 1_000_000
"""Lengths from which on one run must do: the analysis of values takes a minute."""
KERNEL_SECONDS: Final = 20.0

LOADABLE: Final = ("dce", "nops", "sprinkle{every=4}", "blind", "zext")
INTERNAL: Final = (
    "fastcall",
    "inline-loop",
    "dce{aux=true}",
    "nops{once=true}",
    "ctx-access",
    "fixup-calls",
    "zext",
    "blind",
)
_NOWHERE: Final[Slots] = np.zeros(0, np.int32)
LOAD: Final = "the kernel's own BPF_PROG_LOAD"


def one(shape: str, n_insns: int) -> dict[str, float]:
    """Seconds of everything on one program."""
    types = kernel.vmlinux_btf() if kernel.available() is None else None
    _everything(SHAPES[shape](100), types)  # import and read what is needed once
    return _everything(SHAPES[shape](n_insns), types)


def _everything(program: Program, types: Any) -> dict[str, float]:
    """Take the time of each pass and analysis."""
    program = with_map_column(program)
    out = _analyses(program)
    began = time.perf_counter()
    known = aux_data(program, subject(), types)
    out["analysis aux_data"] = time.perf_counter() - began
    out["list, linearize and validation"] = _run("", program, Target.loadable())[1]
    for text in LOADABLE:
        out[f"pass {text}"] = _run(text, program, Target.loadable())[0]
    if types is None:
        return out
    internal = Target.internal(btf=types)
    for text in INTERNAL:
        out[f"pass {text}, kernel's form"] = _run(text, known, internal)[0]
    whole = str(Pipeline.kernel(harden=True))
    out["all that the kernel does, as one pipeline"] = _run(whole, known, internal)[1]
    return out


def _run(text: str, program: Program, target: Target) -> tuple[float, float]:
    """Seconds of the passes alone, and of the whole."""
    report = Pipeline.parse(text).run(program, target, subject()).report
    return sum(one.milliseconds for one in report.passes) / 1000, report.milliseconds / 1000


@dataclass(frozen=True, slots=True, eq=False)
class Subjects:
    """What analyses work on.

    Attributes:
        program: it.
        view: its code.
        blocks: their blocks.
        liveness: and what is alive where, for the analysis that starts from it.
    """

    program: Program
    view: CodeView
    blocks: Blocks
    liveness: Liveness

    @classmethod
    def of(cls, program: Program) -> Self:
        """All that is needed of a program."""
        view = PatchList(program).view()
        blocks = Blocks.of(view, _NOWHERE)
        return cls(program, view, blocks, Liveness.of(view, blocks))


def _reached(of: Subjects) -> object:
    constants = Constants(of.view, of.blocks, np.zeros(len(of.view), bool))
    return reachable(of.view, of.blocks, np.zeros(1, np.int32), constants)


ANALYSES: Final[dict[str, Callable[[Subjects], object]]] = {
    "validate": lambda of: validate(of.program),
    "Blocks": lambda of: Blocks.of(of.view, _NOWHERE),
    "reachable, with Constants": _reached,
    "Liveness": lambda of: Liveness.of(of.view, of.blocks),
    "upper_halves_read": lambda of: upper_halves_read(of.view, of.blocks),
    "initialized": lambda of: initialized(of.view, of.blocks, of.liveness),
    "StackUse": lambda of: StackUse.of(of.view, of.blocks),
}


def _analyses(program: Program) -> dict[str, float]:
    of = Subjects.of(program)
    out = {}
    for name, analysis in ANALYSES.items():
        began = time.perf_counter()
        analysis(of)
        out[f"analysis {name}"] = time.perf_counter() - began
    return out


def load(shape: str, n_insns: int) -> float | None:
    """Seconds to load the program, None where the kernel refuses."""
    program = SHAPES[shape](n_insns)
    try:
        with kernel.unblinded():
            began = time.perf_counter()
            with kernel.load(program, prog_type="sched_cls", log_level=0):
                return time.perf_counter() - began
    except BpfPatchError:
        return None


def measure(runs: int) -> Outcome:
    """Both shapes, all lengths."""
    out = Outcome()
    lines = []
    runs = min(runs, MOST_RUNS)
    for shape in SHAPES:
        found = {
            n: child.figures(runs if n < ONCE_FROM else 1, "passes.one", shape, n) for n in SIZES
        }
        names = list(found[SIZES[0]])
        by_name = {name: {n: found[n][name] for n in SIZES} for name in names}
        loads = _loads(shape, runs)
        out.figures[shape] = {**by_name, LOAD: loads}
        out.tables.append(_table(shape, by_name, loads))
        for name in ("list, linearize and validation", "pass blind", "analysis aux_data"):
            lines.append(Line(name, middle(by_name[name]).items(), group=shape))
        lines.append(Line(LOAD, middle(loads).items(), group=shape))
    out.plots.append(
        Plot("passes", "Time by the length of the program", "instructions", "seconds", tuple(lines))
    )
    return out


def _loads(shape: str, runs: int) -> dict[int, list[float]]:
    out: dict[int, list[float]] = {}
    if kernel.available() is not None:
        return out
    for n_insns in SIZES:
        seconds = child.once("passes.load", shape, n_insns)
        if seconds is None:
            break
        out[n_insns] = [seconds]
        # Ten times as long a program takes a hundred times as long, at the worst.
        if seconds > KERNEL_SECONDS / 100:
            continue
        out[n_insns] += [child.once("passes.load", shape, n_insns) for _ in range(runs - 1)]
    return out


def _table(
    shape: str, by_name: dict[str, dict[int, list[float]]], loads: dict[int, list[float]]
) -> Table:
    rows = []
    for name, points in (*by_name.items(), (LOAD, loads)):
        slope = exponent(middle(points), FIT_FROM)
        cells = [[1000 * value for value in points.get(n, [])] for n in SIZES]
        rows.append((name, *cells, None if slope is None else f"{slope:.2f}"))
    header = ("ms", *(f"{n:,}" for n in SIZES), f"exponent from {FIT_FROM:,}")
    return Table(f"A {shape} program, by its length in instructions", header, rows)
