"""What far jumps cost: linearizing with them, next to the same list with near ones."""

from __future__ import annotations

import statistics
import time
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Body, PatchList, Relax
from bpfpatch.program import LINE, LINE_INFO, Anchor, AnchoredTable, Program

from . import child
from .report import Outcome, Table

N_INSNS: Final = 1_000_000
N_JUMPS: Final = 100_000
FAR: Final = 40_000
NEAR: Final = 200
MOST_RUNS: Final = 3
_AGAIN: Final = 3
_LINE_EVERY: Final = 3


def one(n_insns: int, n_jumps: int, span: int, has_lines: bool, how: str) -> float:
    """Seconds to linearize a list of so many instructions whose jumps span so many slots."""
    patches = _list(n_insns, n_jumps, span, has_lines)
    relax = Relax(how)  # type: ignore[arg-type]
    best = float("inf")
    for _ in range(_AGAIN):
        began = time.perf_counter()
        done = patches.linearize(relax)
        best = min(best, time.perf_counter() - began)
        assert (done.relaxed is not None) == (span == FAR)
    return best


def _list(n_insns: int, n_jumps: int, span: int, has_lines: bool) -> PatchList:
    """Half as many instructions, an edit that doubles them, and jumps here and there."""
    n_before = n_insns // 2
    insns = np.tile(isa.mov(0, 0), n_before)
    insns[-1] = isa.exit_()[0]
    sites = np.linspace(0, n_before - FAR // 2 - 2, n_jumps).astype(np.int32)
    insns[sites] = isa.jump("==", 1, 0, span // 2)[0]
    tables = {}
    if has_lines:
        at = np.arange(0, n_before, _LINE_EVERY, dtype=np.int32)
        tables[LINE_INFO] = AnchoredTable(at, np.zeros(at.size, LINE), Anchor.ENTRY, unique=True)
    patches = PatchList(Program(insns, tables=tables))
    patches.insert_before(np.arange(n_before, dtype=np.int32), Body.asm("r1 = 1"))
    patches.flush()
    return patches


def measure(most: int) -> Outcome:
    """Take all figures."""
    rows = []
    for has_lines in (False, True):
        near = _figure(most, NEAR, has_lines, "islands")
        for how in ("gotol", "islands"):
            far = _figure(most, FAR, has_lines, how)
            what = "with line records" if has_lines else "bare"
            rows.append(
                (what, how, f"{1000 * near:.0f} ms", f"{1000 * far:.0f} ms", f"{far / near:.1f}")
            )
    head = ("1,000,000 instructions", "relaxed by", "100,000 near jumps", "far jumps", "ratio")
    return Outcome([Table(f"relax: jumps over {FAR:,} slots", head, rows)])


def _figure(most: int, span: int, has_lines: bool, how: str) -> float:
    found: list[float] = child.runs(
        min(most, MOST_RUNS), "relax.one", N_INSNS, N_JUMPS, span, has_lines, how
    )
    return statistics.median(found)
