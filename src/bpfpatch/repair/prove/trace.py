"""A path of the log, run with terms: is there a run that takes it?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from bpfpatch.prove.solver import require_z3

from ..site import RepairSite
from .machine import CALL, EXIT, JMP, JMP32, SymbolicMachine

MILLISECONDS: Final = 1000
MOST_STEPS: Final = 400
MOST_STARTS: Final = 48


def impossible_branch(site: RepairSite) -> tuple[int, int] | None:
    """The latest part of the path that no run takes.

    Returns:
        Indices of the step from where on it is impossible, whatever holds there, and of the branch
        that shows it: what goes along there goes the other way. None where the path may be taken,
        as far as can be told.
    """
    z3 = require_z3()
    frame = site.steps[site.last].frame
    first = site.entry(site.last, frame)
    indices = [at for at in range(first, site.last + 1) if site.steps[at].frame == frame]
    indices = indices[-MOST_STEPS:]
    needed = _contradiction(z3, site, indices)
    if needed is None:
        return None
    # Of what holds in front of the first branch that it takes, as little as possible.
    where = indices.index(needed[0])
    for start in range(where, max(where - MOST_STARTS, -1), -1):
        found = _contradiction(z3, site, indices[start:])
        if found is not None:
            return indices[start], found[1]
    return None


def _contradiction(z3: Any, site: RepairSite, indices: list[int]) -> tuple[int, int] | None:
    """The first and the last of branches that cannot all go as they do; None for none."""
    solver = z3.Solver()
    solver.set("timeout", MILLISECONDS)
    branches = _conditions(z3, solver, site, indices)
    marks = [z3.Bool(f"m{at}") for at, _ in branches]
    for mark, (_, holds) in zip(marks, branches, strict=True):
        solver.add(z3.Implies(mark, holds))
    if not marks or solver.check() != z3.sat:
        return None
    # The earliest end at which it is impossible: halve.
    low, high = 0, len(marks)
    if solver.check(*marks) != z3.unsat:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if solver.check(*marks[:middle]) == z3.unsat else (middle, high)
    solver.check(*marks[:high])
    core = {str(one) for one in solver.unsat_core()}
    needed = [at for at, _ in branches if f"m{at}" in core]
    return (min(needed), max(needed)) if needed else None


def _conditions(
    z3: Any, solver: Any, site: RepairSite, indices: list[int]
) -> list[tuple[int, Any]]:
    """What must hold for each branch to go as the path goes."""
    code = site.code
    machine = SymbolicMachine(z3, code, code.subprog(site.slot(site.last)), site)
    state = machine.anything(site.slot(indices[0]), z3.BoolVal(True))
    out: list[tuple[int, Any]] = []
    for at, following in pairwise(indices):
        slot = site.slot(at)
        fields = code.fields(slot)
        if fields.code & 7 in (JMP, JMP32) and fields.code not in (CALL, EXIT):
            taken = machine.taken(fields, state)
            if taken is not None:
                goes_on = site.slot(following) == slot + 1
                out.append((at, z3.Not(taken) if goes_on else taken))
        machine.step(slot, state)
    solver.add(*machine.facts)
    return out
