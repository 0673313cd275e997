"""Relax: bring the target of every jump within reach of its 16-bit field.

The last step of linearizing, and the only place that knows of it. A relaxation puts nodes into
the merged list, and `linearize` lays that out as any other: tables, columns and provenance follow
as for an edit. Two ways, by the cpu version that the result may need:

**gotol** (cpu v4), whose distance has 32 bits::

    goto far          ->  gotol far
    if c goto far     ->  if !c goto next;  gotol far;  next: ...
    may_goto far      ->  may_goto L;  goto next;  L: gotol far;  next: ...

The third form is for what has no opposite, and for an instruction that a row of a table forbids
to change.

**islands**, which any kernel takes: an unconditional jump within reach, which jumps on to the
target or to the next island. It stands where control cannot fall into it, after an exit or a
goto, or else with a jump around it. All jumps to one target from one side share one chain of
islands, that of the farthest of them; others join it where it is nearest to the target.

Both go round until nothing grows. A node that was once needed is never taken back, and a later
round grows faster than the one before it, so that the rounds are few whatever the program::

    while True:
        lay out, with as much room as the last round needed
        find the jumps that are too far now, and the room that they need
        if the room is enough: break
        make room
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.program import AnchoredTable
from bpfpatch.program.refs import References
from bpfpatch.program.types import gather

from ..state import Merged
from ..view import Layout
from .carry import carry_out
from .gotol import by_gotol
from .islands import by_islands
from .plan import PASS, REACH, How, Relax, Relaxed, RelaxedCode, RelaxPlan, StuckError

ROOM: Final = REACH // 4
"""Slots by which what is between a jump and its target may still grow: after loading, the kernel
writes look-ups, loads from contexts and divisions out, and refuses a program in which that moves
the target out of reach (linux v6.18, kernel/bpf/core.c, bpf_adj_delta_to_off())."""
_GOTOL_SINCE: Final = isa.BY_NAME["gotol"].cpu


def relaxation(
    merged: Merged,
    layout: Layout,
    refs: References,
    lines: AnchoredTable | None,
    relax: Relax,
) -> tuple[Merged, Relaxed]:
    """A list in which every jump is within reach.

    Args:
        merged: the list; it stays as it is.
        layout: where its nodes are.
        refs: its references in these places.
        lines: its line records in these places.
        relax: how.

    Raises:
        StuckError: what cannot be done.
    """
    short = np.flatnonzero(refs.kind == isa.RefKind.JUMP16)
    code = RelaxedCode(
        merged,
        layout,
        layout.slots(merged.state.subprog_heads()),
        short,
        refs.slot[short].astype(np.int64),
        refs.target[short].astype(np.int64),
    )
    how = relax.how
    if how == "auto":
        needed = isa.min_cpu(gather(merged.pool, layout.pool_slot).view(isa.INSN))
        level = int(needed.max(initial=0, where=needed < isa.CPU_INTERNAL))
        how = "gotol" if level >= _GOTOL_SINCE else "islands"
    plan = _plan(code, by_gotol if how == "gotol" else by_islands, relax.reach)
    return carry_out(code, plan, lines), plan.relaxed


def _plan(
    code: RelaxedCode, plan: Callable[[RelaxedCode, int], RelaxPlan], reach: int
) -> RelaxPlan:
    """A plan that leaves the kernel room, if there is one, else one that just fits."""
    if reach == REACH:
        with suppress(StuckError):
            return plan(code, reach - ROOM)
    return plan(code, reach)


__all__ = ["PASS", "REACH", "How", "Relax", "Relaxed", "StuckError", "relaxation"]
