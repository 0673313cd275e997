"""Linearize: from a patch list to a flat program and its remap, in one pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import LostTargetError, ReachError, SlotError, ValidationError, Where
from bpfpatch.program import (
    FIELD_LIMITS,
    AnchoredTable,
    Column,
    OnReplace,
    Program,
    Remap,
    Subprogs,
)
from bpfpatch.program.anchors import lost_row
from bpfpatch.program.refs import References, write_targets
from bpfpatch.program.types import DELETED, INSERTED, LOST, REPLACED, Insns, Slots, gather
from bpfpatch.program.validate import bad_references

from .attached import Attached
from .provenance import Provenance
from .state import ListState
from .view import Layout, in_order


@dataclass(frozen=True, slots=True, eq=False)
class Linearized:
    """A flat program and the way to it. Unpacks as a pair."""

    program: Program
    remap: Remap

    def __iter__(self) -> Iterator[Any]:
        return iter((self.program, self.remap))

    def __repr__(self) -> str:
        return f"<Linearized {self.program!r} from {self.remap.own.size} slots>"


def linearize(
    program: Program,
    state: ListState,
    pool: NDArray[np.uint64],
    *,
    provenance: Provenance,
    replaced: Slots,
    modified: Slots,
    rows: Mapping[str, Attached],
    columns: Mapping[str, Column],
    values: Mapping[str, NDArray[Any] | None],
) -> Linearized:
    """Turn a merged patch list back into a program, once.

    In plain Python, and but for the tables::

        slot = {node: i for i, node in enumerate(order)}
        for node in order:
            insn = pool[node]
            if node in target:
                insn.distance = slot[target[node]] - slot[node] - 1

    Args:
        program: the original.
        state: merged.
        pool: (n_pool or more,) instructions as words.
        provenance: which site and pass inserted nodes come from.
        replaced: nodes whose place a body took.
        modified: nodes that were changed in place.
        rows: attached rows by table.
        columns: the columns by name, with the original program's values.
        values: by column, (n_pool,) values by node, or None where nobody looked.

    Raises:
        LostTargetError: a jump or call whose target is gone.
        ReachError: one whose distance does not fit its field.
        LostRowError: a row that must not lose its instruction has lost it.
        ValidationError: a jump that leaves its subprog, a call to no subprog's start.

    Source: the RFC's bpf_linearize_list_insn() and verifier_linearize_list_insn(), as one
    function over tables, as its review asked.
    """
    layout = Layout(state, pool)
    insns = gather(pool, layout.pool_slot).view(isa.INSN)
    remap = _remap(program, state, layout, provenance, replaced, modified)
    draft = _Draft(program, insns, remap)
    refs = _write_references(draft, state, layout)
    subprogs = _subprogs(program, layout.slots(state.entry[program.subprogs.start]))
    external = remap.own[program.external] if program.external.size else program.external
    tables = {
        name: _with_attached(draft, name, rows[name], layout, replaced)
        if name in rows
        else _moved(draft, name, table)
        for name, table in program.tables.items()
    }
    out = Program(
        insns=insns,
        subprogs=subprogs,
        sections=program.sections,
        tables=tables,
        columns={
            name: _column(column, values[name], layout, insns, len(program))
            for name, column in columns.items()
        },
        external=external[external >= 0],
        strings=program.strings,
    )
    vars(out)["refs"] = refs  # known already: no need to decode them again
    if state.has_foreign_refs:
        wrong = list(bad_references(out))
        if wrong:
            raise ValidationError(wrong)
    return Linearized(out, remap)


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """A program in the making: enough of it to say where an error is."""

    program: Program
    insns: Insns
    remap: Remap

    def where(self, slot: int) -> Where:
        """A new slot's place; subprog and line are those of the original slot it comes from."""
        origin = int(self.remap.site[slot])
        source = self.program.source(origin)
        return Where(
            slot,
            self.program.subprog_name(origin),
            "" if source is None else str(source),
            isa.describe(self.insns, slot),
        )


def _remap(
    program: Program,
    state: ListState,
    layout: Layout,
    provenance: Provenance,
    replaced: Slots,
    modified: Slots,
) -> Remap:
    """Read the remap off a merged state; what only some ask for is made when they do."""
    n_old = len(program)
    land, entry = state.land, state.entry  # the state goes on to change
    past = provenance.snapshot()
    remap = Remap(
        own=lambda: _own(program, layout, replaced),
        land=lambda: layout.slots(land),
        entry=lambda: remap.land if entry is land else layout.slots(entry),
        bound=lambda: _bounds(remap.entry, layout.pool_slot.size),
        orig=lambda: np.where(layout.pool_slot < n_old, layout.pool_slot, INSERTED),
        site=lambda: past.site(layout.pool_slot),
        origin=lambda: past.origin(layout.pool_slot),
        passes=tuple(provenance.passes),
        modified=lambda: _still_there(modified, layout, n_old),
    )
    return remap


def _own(program: Program, layout: Layout, replaced: Slots) -> Slots:
    """(n_old,) flat slots of the original instructions, or what became of them."""
    n_old = len(program)
    own = layout.slot_of[:n_old].copy()
    second = np.flatnonzero(program.second_slots)
    own[second] = np.where(own[second - 1] >= 0, own[second - 1] + 1, DELETED)
    own[own < 0] = DELETED
    own[replaced[replaced < n_old]] = REPLACED
    return own


def _still_there(modified: Slots, layout: Layout, n_old: int) -> Slots:
    """Original slots that were changed in place and not deleted later."""
    is_changed = np.zeros(n_old, bool)
    is_changed[modified[modified < n_old]] = True
    changed = np.flatnonzero(is_changed).astype(np.int32)
    return changed[layout.slots(changed) >= 0]


def _bounds(entry: Slots, n_new: int) -> Slots:
    """(n_old + 1,) where each boundary went: to the next entry that is left."""
    edges = np.append(np.where(entry == LOST, n_new, entry), n_new)
    return np.minimum.accumulate(edges[::-1])[::-1]


def _write_references(draft: _Draft, state: ListState, layout: Layout) -> References:
    """Turn references to nodes into distances, and put them into their fields."""
    slot, target = in_order(layout.slots(state.ref_node), state.ref_target)
    lost = slot[target == LOST]
    if lost.size:
        _raise_first(
            [
                LostTargetError(
                    draft.where(at),
                    "its target was deleted, and nothing that it could slide to follows in the "
                    "subprog; delete this instruction too, or replace the target instead",
                )
                for at in lost[:_SHOWN].tolist()
            ],
            lost.size,
        )
    kind = np.empty(slot.size, np.uint8)
    for part in isa.portions(slot.size):
        kind[part] = isa.alone(isa.ref_kinds, draft.insns[slot[part]])
    refs = References(slot, kind, layout.slots(target))
    far = write_targets(draft.insns, refs)
    if far.size:
        _raise_far(draft, slot[far], refs.target[far], kind[far])
    return refs


def _raise_far(draft: _Draft, slots: Slots, targets: Slots, kinds: NDArray[np.uint8]) -> NoReturn:
    hints = {
        isa.RefKind.JUMP16: "use gotol (cpu v4) for `goto`, jump over a gotol for a condition, "
        "or split the subprog",
    }
    errors: list[SlotError] = []
    for row in range(min(slots.size, _SHOWN)):
        slot, target = int(slots[row]), int(targets[row])
        kind = isa.RefKind(int(kinds[row]))
        distance = target - slot - 1
        errors.append(
            ReachError(
                draft.where(slot),
                draft.where(target),
                distance,
                FIELD_LIMITS[kind][distance > 0],
                hints.get(kind, "make the program smaller"),
            )
        )
    _raise_first(errors, slots.size)


_SHOWN: Final = 100
"""Of so many errors of one kind the places are worked out; the rest is counted."""


def _raise_first(errors: list[SlotError], n_errors: int) -> NoReturn:
    """Raise the first of several errors of one kind; it knows the others."""
    first, *others = errors
    raise first.with_others(others, n_errors - 1)


def _subprogs(program: Program, start: Slots) -> Subprogs:
    subprogs = program.subprogs
    survives = start != LOST
    return Subprogs(
        start[survives],
        tuple(name for name, stays in zip(subprogs.names, survives, strict=True) if stays),
        subprogs.section[survives],
        subprogs.is_root[survives],
    )


def _moved(draft: _Draft, name: str, table: AnchoredTable) -> AnchoredTable:
    """A table in its new place; an error where a row's policy forbids what happened."""
    for row in draft.remap.broken_rows(table)[:1].tolist():
        old = int(table.insn[row])
        verb = "replaced" if draft.remap.own[old] == REPLACED else "changed in place"
        what = f"was {verb}, but row {row} of {name} belongs to it"
        raise lost_row(name, row, SlotError(draft.program.where(old), what))
    return draft.remap.apply(table)


def _with_attached(
    draft: _Draft, name: str, extra: Attached, layout: Layout, replaced: Slots
) -> AnchoredTable:
    """A table in its new place, with attached rows sorted in.

    An attached row is bound to its instruction as the others of its table are:
    it goes when that is deleted, and an error where the policy says so.
    """
    table = draft.program.tables[name]
    moved = _moved(draft, name, table)
    place = layout.slots(extra.node)
    lives = place >= 0
    is_broken = (lives & extra.is_changed) | (~lives & np.isin(extra.node, replaced))
    if table.on_replace is OnReplace.ERROR and is_broken.any():
        row = int(np.argmax(is_broken))
        what = f"was replaced or changed in place, but a row attached to {name} belongs to it"
        at = draft.where(int(place[row])) if lives[row] else Where(int(extra.node[row]))
        raise lost_row(name, len(table) + row, SlotError(at, what))
    added = np.array(extra.rows, table.rows.dtype)
    insn = np.concatenate([moved.insn, place[lives]])
    rows = np.concatenate([moved.rows, added[lives]])
    by_slot = np.argsort(insn, kind="stable")
    return moved.with_rows(insn[by_slot], rows[by_slot])


def _column(
    column: Column, by_node: NDArray[Any] | None, layout: Layout, insns: Insns, n_old: int
) -> Column:
    """A column in its new place; where no function is to fill it, when somebody asks for it."""
    pool_slot, fill = layout.pool_slot, column.fill
    if by_node is not None:
        return Column(_at(by_node, pool_slot), fill)
    has_new = bool(pool_slot.size) and int(pool_slot.max()) >= n_old
    if not has_new:
        return Column.later(partial(_at, column.values, pool_slot), pool_slot.size, fill)
    if callable(fill):
        return Column(_filled(column.values, pool_slot, n_old, column.fill_for(insns)), fill)
    # Made of an array: NumPy 2.0 lets np.full cut a number that does not fit.
    one = np.asarray(fill, column.values.dtype)
    row = np.full(column.values.shape[1:], one, column.values.dtype)[None]
    make = partial(_filled, column.values, pool_slot, n_old, row)
    return Column.later(make, pool_slot.size, fill)


def _at(by_node: NDArray[Any], pool_slot: Slots) -> NDArray[Any]:
    """Values by node, by flat slot."""
    out = np.empty((pool_slot.size, *by_node.shape[1:]), by_node.dtype)
    for part in isa.portions(pool_slot.size):
        by_node.take(pool_slot[part], axis=0, mode="clip", out=out[part])
    out.flags.writeable = False
    return out


def _filled(values: NDArray[Any], pool_slot: Slots, n_old: int, fill: NDArray[Any]) -> NDArray[Any]:
    """Values by flat slot; ``fill`` is for inserted instructions, (1, ...) or one a slot."""
    out = np.empty((pool_slot.size, *values.shape[1:]), values.dtype)
    for part in isa.portions(pool_slot.size):
        values.take(pool_slot[part], axis=0, mode="clip", out=out[part])
        is_new = (pool_slot[part] >= n_old).reshape(-1, *(1 for _ in out.shape[1:]))
        np.copyto(out[part], fill if len(fill) == 1 else fill[part], where=is_new)
    out.flags.writeable = False
    return out
