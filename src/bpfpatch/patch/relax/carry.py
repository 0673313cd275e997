"""Carry out what a relaxation has decided: on the list, its columns and its line records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import LINE_INFO, AnchoredTable
from bpfpatch.program.types import Slots

from ..attached import Attached
from ..state import Merged
from .plan import PASS, RelaxedCode, RelaxPlan


def carry_out(code: RelaxedCode, plan: RelaxPlan, lines: AnchoredTable | None) -> Merged:
    """The list with a plan's nodes in it."""
    merged, state = code.merged, code.merged.state
    n_new = plan.word.size
    fresh = np.arange(state.n_pool, state.n_pool + n_new, dtype=np.int32)
    pool = np.concatenate([merged.pool[: state.n_pool], plan.word])
    pool[plan.changed] = plan.changed_word
    ref_target = state.ref_target.copy()
    ref_target[np.searchsorted(state.ref_node, plan.jump)] = plan.to
    position = code.layout.positions(plan.after) + 1
    new_state = replace(
        state,
        n_pool=state.n_pool + n_new,
        order=np.insert(state.order, position, fresh),
        ref_node=np.concatenate([state.ref_node, fresh]),
        ref_target=np.concatenate([ref_target, plan.target]),
        ref_is_entry=np.concatenate([state.ref_is_entry, np.zeros(n_new, bool)]),
        is_pristine=False,
    )
    return replace(
        merged,
        state=new_state,
        pool=pool,
        provenance=merged.provenance.with_nodes(PASS, fresh, plan.site),
        modified=np.concatenate([merged.modified, plan.changed]),
        rows=_with_lines(code, plan, fresh, lines),
        values=_longer(code, plan),
    )


def _longer(code: RelaxedCode, plan: RelaxPlan) -> Mapping[str, NDArray[Any] | None]:
    """The columns by node, with what new nodes get."""
    merged = code.merged
    n_old, n_pool = len(merged.program), merged.state.n_pool
    before = merged.pool[n_old:n_pool].view(isa.INSN)
    changes_inserted = bool((plan.changed >= n_old).any())
    out = dict(merged.values)
    for name, column in merged.columns.items():
        values = out[name]
        if values is None and callable(column.fill) and changes_inserted:
            # What is computed from an inserted instruction is so from what it was.
            values = np.concatenate([column.values, column.fill_for(before)])
        if values is not None:
            fresh = column.fill_for(plan.word.view(isa.INSN))
            out[name] = np.concatenate([values, fresh])
    return out


def _with_lines(
    code: RelaxedCode, plan: RelaxPlan, fresh: Slots, lines: AnchoredTable | None
) -> Mapping[str, Attached]:
    """Line records for islands, and for what follows them.

    An island has the line of its jump. The instruction after a site's islands goes on to have
    the line that it had, which no record of its own may say.
    """
    merged = code.merged
    if lines is None or not plan.has_line.any():
        return merged.rows
    own = np.flatnonzero(plan.has_line)
    source = code.layout.slots(plan.site[own])
    row = _line_at(code, lines, source)
    stand = plan.after[own]
    is_first = np.append(True, stand[1:] != stand[:-1])[: own.size]
    before = np.where(is_first, _line_at(code, lines, stand), np.append(-1, row[:-1])[: own.size])
    keep = (row >= 0) & (row != before)
    sites = np.unique(plan.after[own[keep]])
    after = code.following(sites)
    after = after[~np.isin(after, np.append(lines.insn, code.heads)) & (after < code.n_slots)]
    again = _line_at(code, lines, after)
    after, again = after[again >= 0], again[again >= 0]
    nodes = np.concatenate([fresh[own[keep]], code.node(after)])
    added = lines.rows[np.concatenate([row[keep], again])]
    attached = Attached(nodes, added, np.zeros(nodes.size, bool))
    return {**merged.rows, LINE_INFO: attached}


def _line_at(code: RelaxedCode, lines: AnchoredTable, slots: NDArray[Any]) -> NDArray[np.intp]:
    """(n,) the row of the line record in force at each slot, or -1."""
    row = np.searchsorted(lines.insn, slots, side="right") - 1
    head = code.heads[np.searchsorted(code.heads, slots, side="right") - 1]
    known = (row >= 0) & (lines.insn[np.maximum(row, 0)] >= head) if len(lines) else row >= 0
    return np.where(known, row, -1)
