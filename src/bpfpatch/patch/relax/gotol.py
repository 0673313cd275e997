"""Far jumps made to fit by gotol, whose distance has 32 bits."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Anchor, OnReplace
from bpfpatch.program.types import Mask

from .plan import PATIENCE, Relaxed, RelaxedCode, RelaxPlan, StuckError, is_far


def by_gotol(code: RelaxedCode, reach: int) -> RelaxPlan:
    """Make every far jump a gotol, or put one after it."""
    codes = code.opcode(code.slot)
    is_goto = codes == isa.JA
    is_bound = _is_bound(code)
    is_turned = ~is_goto & ~is_bound & (_OPPOSITE[codes] != 0)
    in_place = is_goto & ~is_bound
    # After a conditional jump that stays as it is, a jump leads around the gotol.
    width = np.where(in_place, 0, np.where(is_turned | is_goto, 1, 2))
    far = _far_with(code, width, reach)
    rows = np.flatnonzero(far & (width > 0))
    last = rows[code.is_last(code.slot[rows]) & ~is_goto[rows]]
    if last.size:
        raise StuckError(
            code.row[last],
            "nothing follows it that it could fall into: end the subprog with exit or goto",
        )
    n_pool, order = code.merged.state.n_pool, code.node
    slots, many = code.slot[rows], width[rows]
    begin = np.cumsum(many) - many  # of each row's new nodes
    n_new = int(many.sum())
    gotol = begin + many - 1
    word = np.full(n_new, isa.JA, np.uint64)
    word[gotol] = isa.GOTOL
    target, to = np.empty(n_new, np.int32), np.empty(rows.size, np.int32)
    target[gotol] = order(code.target[rows])
    turned = is_turned[rows]
    to[~turned] = n_pool + gotol[~turned]
    waits = many == 2
    after = order(np.minimum(code.following(slots), code.n_slots - 1))
    to[turned] = after[turned]
    target[begin[waits]] = after[waits]
    plain = np.flatnonzero(far & in_place)
    head = code.merged.pool[order(slots[turned])] & ~np.uint64(0xFF)
    return RelaxPlan(
        after=np.repeat(slots, many),
        word=word,
        target=target,
        site=np.repeat(order(slots), many),
        has_line=np.zeros(n_new, bool),
        jump=order(slots),
        to=to,
        changed=np.concatenate([order(code.slot[plain]), order(slots[turned])]),
        changed_word=np.concatenate(
            [np.full(plain.size, isa.GOTOL, np.uint64), head | _OPPOSITE[codes[rows[turned]]]]
        ),
        relaxed=Relaxed("gotol", int(far.sum()), 0, int(waits.sum()), n_new),
    )


def _far_with(code: RelaxedCode, width: NDArray[np.int64], reach: int) -> Mask:
    """Which references are too far once each of these has ``width`` more slots after it."""
    before = np.searchsorted(code.slot, code.target)
    far = np.zeros(code.slot.size, bool)
    grown = np.zeros(code.slot.size + 1, np.int64)
    n_rounds = 0
    while True:
        distance = code.target + grown[before] - (code.slot + grown[:-1]) - 1
        # Being relaxed does no harm to a jump that could do without.
        spare = 0 if n_rounds < PATIENCE else 1 << (n_rounds - PATIENCE)
        new = ~far & ((distance >= reach - spare) | (distance < spare - reach))
        if not new.any() or (spare and not (is_far(distance, reach) & ~far).any()):
            return far
        far |= new
        np.cumsum(np.where(far, width, 0), out=grown[1:])
        n_rounds += 1


def _is_bound(code: RelaxedCode) -> Mask:
    """(r,) referring instructions that a row forbids to change."""
    nodes = [np.zeros(0, np.int32)]
    for name, table in code.merged.program.tables.items():
        if table.anchor is Anchor.OWN and table.on_replace is OnReplace.ERROR:
            nodes.append(table.insn)
            if name in code.merged.rows:
                nodes.append(code.merged.rows[name].node)
    return np.isin(code.node(code.slot), np.concatenate(nodes))


def _opposites() -> NDArray[np.uint64]:
    """By opcode byte, that of the jump which is taken when this one is not; or 0."""
    out = np.zeros(256, np.uint64)
    for operation, opposite in isa.OPPOSITE_JUMPS.items():
        for rest in (0x05, 0x0D, 0x06, 0x0E):
            out[operation | rest] = opposite | rest
    return out


_OPPOSITE: Final = _opposites()
