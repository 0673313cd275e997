"""Instructions a second: the compiled interpreter, a naive loop, and the kernel's JIT.

Each program runs with both of our engines in one process, alternating. The
first run, which compiles, is not counted but shown. The kernel runs the same
program through BPF_PROG_TEST_RUN, many times in one call.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Final

from bpfpatch import isa, kernel
from bpfpatch.asm import assemble
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import Machine, MachineOptions
from bpfpatch.interp.contexts import Context
from bpfpatch.program import Program

from . import child
from .loops import PROGRAMS, SCALED, scaled
from .report import Cell, Line, Outcome, Plot, Table

_BUDGET: Final = 100_000_000
_REPEAT: Final = 2000
_PACKET: Final = bytes(1400)
_LONG: Final = 33_000
LENGTHS: Final = (100, 1_000, 10_000, 100_000, 300_000)
"""Instructions of a run, of the loops that are run at several; the verifier follows a million."""


def ours(name: str) -> dict[str, float]:
    """Millions of instructions a second with both engines, and the seconds of the first run."""
    return _engines(*PROGRAMS[name])


def ours_by_length(name: str) -> list[dict[str, float]]:
    """The same of a loop for each of the lengths."""
    _engines(scaled(name, LENGTHS[0]), PROGRAMS[name][1])  # import what is needed once
    return [_engines(scaled(name, n_insns), PROGRAMS[name][1]) for n_insns in LENGTHS]


def _engines(text: str, context: Context) -> dict[str, float]:
    fast, slow = _machines(assemble(text))
    began = time.perf_counter()
    first = fast.run(context)
    out = {"first": time.perf_counter() - began, "insns": float(first.n_insns)}
    for machine, engine in ((fast, "compiled"), (slow, "naive")):
        out[engine], r0 = _rate(machine, context)
        assert r0 == first.r0, text
    return out


def _machines(program: Program) -> tuple[Machine, Machine]:
    """Both engines, with one map."""
    maps = {1: MapDefinition("", MapType.ARRAY, 4, 8, 1)}
    return (
        Machine(program, maps=maps, options=MachineOptions(budget=_BUDGET, trace_helpers=False)),
        Machine(
            program,
            maps=maps,
            options=MachineOptions(budget=_BUDGET, trace_helpers=False, engine="reference"),
        ),
    )


def _rate(machine: Machine, context: Context) -> tuple[float, int]:
    began = time.perf_counter()
    outcome = machine.run(context)
    return outcome.n_insns / (time.perf_counter() - began) / 1e6, outcome.r0


def in_kernel(name: str) -> float | str:
    """Nanoseconds of one run in the kernel, or why there is none."""
    return _loaded(PROGRAMS[name][0])


def in_kernel_by_length(name: str) -> list[float | str]:
    """The same of a loop for each of the lengths."""
    return [_loaded(scaled(name, n_insns)) for n_insns in LENGTHS]


def _loaded(text: str) -> float | str:
    program = assemble(text)
    try:
        with kernel.Map.create("array", 4, 8, 1) as table, kernel.unblinded():
            insns = program.insns.copy()
            loads = isa.is_ld_imm64(insns)
            insns["regs"][loads] = (insns["regs"][loads] & 0x0F) | 0x10
            insns["imm"][loads] = table.fd
            own = Program(insns, subprogs=program.subprogs)
            loaded = kernel.load(own, prog_type="xdp")
        with loaded:
            return loaded.test_run(_PACKET, repeat=_REPEAT).duration_ns
    except BpfPatchError as error:
        return str(error)


def long_start() -> float:
    """Seconds of the first run of 100,000 instructions in one function."""
    text = "".join(
        f"r0 += {k % 7}\nif r0 == {k} goto n{k}\nr1 ^= r0\nn{k}:\n" for k in range(_LONG)
    )
    machine = Machine(assemble(text + "exit"), options=MachineOptions(budget=_BUDGET))
    began = time.perf_counter()
    machine.run()
    return time.perf_counter() - began


def measure(runs: int) -> Outcome:
    """All loops."""
    out = Outcome()
    rows: list[tuple[Cell, ...]] = []
    notes = []
    for name in PROGRAMS:
        found = out.figures[name] = child.figures(runs, "interp.ours", name)
        n_insns = found["insns"][0]
        in_ns = child.runs(runs, "interp.in_kernel", name) if _can_load() else ["no bpf(2)"]
        if isinstance(in_ns[0], str):
            notes.append(f"The kernel refuses {name}: {in_ns[0]}.")
        found["kernel"] = _rates(n_insns, in_ns)
        compiled, naive = (statistics.median(found[key]) for key in ("compiled", "naive"))
        rows.append(
            (
                name,
                f"{n_insns:,.0f}",
                found["compiled"],
                found["naive"],
                compiled / naive,
                found["kernel"],
                [1000 * seconds for seconds in found["first"]],
            )
        )
    header = (
        "loop",
        "instructions",
        "compiled, million a second",
        "naive, million a second",
        "ratio",
        "kernel's JIT, million a second",
        "first run, ms",
    )
    start = out.figures["long start"] = child.runs(1, "interp.long_start")
    notes.append(
        f"The first run of {3 * _LONG + 1:,} instructions in one function takes {start[0]:.2f} s."
    )
    out.tables.append(Table("Interpreter", header, rows, tuple(notes)))
    _add_lengths(out, runs)
    return out


def _can_load() -> bool:
    return kernel.available() is None


def _rates(n_insns: float, in_ns: Sequence[float | str]) -> list[float]:
    return [1000 * n_insns / ns for ns in in_ns if not isinstance(ns, str) and ns]


def _add_lengths(out: Outcome, runs: int) -> None:
    """Some of the loops, run for longer and longer."""
    rows: list[tuple[Cell, ...]] = []
    lines: list[Line] = []
    for name in SCALED:
        ours_ = child.runs(runs, "interp.ours_by_length", name)
        in_ns = child.runs(runs, "interp.in_kernel_by_length", name) if _can_load() else []
        found: list[dict[str, list[float]]] = []
        for at in range(len(LENGTHS)):
            of = {key: [run[at][key] for run in ours_] for key in ours_[0][at]}
            of["kernel"] = _rates(of["insns"][0], [run[at] for run in in_ns])
            found.append(of)
            rates = (of[key] for key in ("compiled", "naive", "kernel"))
            rows.append((name, f"{of['insns'][0]:,.0f}", *rates))
        out.figures[f"{name} by length"] = found
        lines += _lines(name, found)
    header = ("loop", "instructions", "compiled", "naive", "kernel's JIT")
    out.tables.append(Table("Million instructions a second, by length of the run", header, rows))
    title = "Instructions a second, by length of the run"
    y = "million instructions a second"
    out.plots.append(Plot("interp", title, "instructions of a run", y, tuple(lines)))


def _lines(name: str, found: list[dict[str, list[float]]]) -> Iterator[Line]:
    for label, key in (("compiled", "compiled"), ("naive", "naive"), ("kernel's JIT", "kernel")):
        points = [(of["insns"][0], statistics.median(of[key])) for of in found if of[key]]
        if points:
            yield Line(label, points, group=name)
