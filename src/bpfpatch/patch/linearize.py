"""Linearize: from a patch list to a flat program and its remap, in one pure function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import LostTargetError, ReachError, SlotError, ValidationError, Where
from bpfpatch.program import (
    FIELD_LIMITS,
    LINE_INFO,
    AnchoredTable,
    Column,
    OnReplace,
    Program,
    Remap,
    Subprogs,
)
from bpfpatch.program.anchors import lost_row
from bpfpatch.program.refs import References, distances, write_distances
from bpfpatch.program.types import DELETED, INSERTED, LOST, REPLACED, Insns, Slots, gather
from bpfpatch.program.validate import bad_references

from .attached import Attached
from .relax import Relax, Relaxed, StuckError, relaxation
from .state import Merged
from .view import Layout, in_order


@dataclass(frozen=True, slots=True, eq=False)
class Linearized:
    """A flat program and the way to it. Unpacks as a pair.

    Attributes:
        program: the new one.
        remap: where the old one's instructions went.
        relaxed: how far jumps were relaxed; None where none was far.
    """

    program: Program
    remap: Remap
    relaxed: Relaxed | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.program, self.remap))

    def __repr__(self) -> str:
        return f"<Linearized {self.program!r} from {self.remap.own.size} slots>"


def linearize(merged: Merged, relax: Relax) -> Linearized:
    """Turn a merged patch list back into a program, once.

    In plain Python, and but for the tables::

        slot = {node: i for i, node in enumerate(order)}
        for node in order:
            insn = pool[node]
            if node in target:
                insn.distance = slot[target[node]] - slot[node] - 1
                # where that does not fit: relax, and begin again

    Args:
        merged: the list.
        relax: what to do with jumps that are too far.

    Raises:
        LostTargetError: a jump or call whose target is gone.
        ReachError: one whose distance does not fit its field, and cannot be relaxed.
        LostRowError: a row that must not lose its instruction has lost it.
        ValidationError: a jump that leaves its subprog, a call to no subprog's start.

    Source: the RFC's bpf_linearize_list_insn() and verifier_linearize_list_insn(), as one
    function over tables, as its review asked.
    """
    program, state, rows = merged.program, merged.state, merged.rows
    layout = Layout(state, merged.pool)
    remap = _remap(merged, layout)
    draft = _Draft(merged, layout, remap)
    refs = _references(draft)
    distance, far = distances(refs, relax.reach)
    if far.size:
        return _relaxed(draft, refs, far, relax)
    insns = draft.insns()
    write_distances(insns, refs.slot, refs.kind, distance)
    subprogs = _subprogs(program, layout.slots(state.entry[program.subprogs.start]))
    tables = {
        name: _with_attached(draft, name, rows[name], layout, merged.replaced)
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
            name: _column(column, merged.values[name], layout, insns, len(program))
            for name, column in merged.columns.items()
        },
        external=_external(merged, layout, remap),
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

    merged: Merged
    layout: Layout
    remap: Remap

    @property
    def program(self) -> Program:
        """The original."""
        return self.merged.program

    def insns(self) -> Insns:
        """(n,) the instructions, with whatever their reference fields held."""
        return gather(self.merged.pool, self.layout.pool_slot).view(isa.INSN)

    def where(self, slot: int) -> Where:
        """A new slot's place; subprog and line are those of the original slot it comes from."""
        origin = int(self.remap.site[slot])
        source = self.program.source(origin)
        return Where(
            slot,
            self.program.subprog_name(origin),
            "" if source is None else str(source),
            isa.describe(self.insns(), slot),
        )


def _relaxed(draft: _Draft, refs: References, far: NDArray[np.intp], relax: Relax) -> Linearized:
    """Linearize what a relaxation makes of a list with far jumps."""
    beyond = far[refs.kind[far] != isa.RefKind.JUMP16]
    if beyond.size:
        _raise_far(draft, refs, beyond, relax, "make the program smaller")
    if relax.how is None:
        _raise_far(draft, refs, far, relax, "without relax=None (--no-relax) it is made to fit")
    lines = draft.program.tables.get(LINE_INFO)
    moved = None if lines is None else draft.remap.apply(lines)
    try:
        eased, account = relaxation(draft.merged, draft.layout, refs, moved, relax)
    except StuckError as error:
        _raise_far(draft, refs, error.rows, relax, error.hint)
    done = linearize(eased, replace(relax, how=None))
    return replace(done, relaxed=account)


def _remap(merged: Merged, layout: Layout) -> Remap:
    """Read the remap off a merged state; what only some ask for is made when they do."""
    program, replaced, modified = merged.program, merged.replaced, merged.modified
    n_old = len(program)
    land, entry = merged.state.land, merged.state.entry  # the state goes on to change
    past = merged.provenance.snapshot()
    remap = Remap(
        own=lambda: _own(program, layout, replaced),
        land=lambda: layout.slots(land),
        entry=lambda: remap.land if entry is land else layout.slots(entry),
        bound=lambda: _bounds(remap.entry, layout.pool_slot.size),
        orig=lambda: np.where(layout.pool_slot < n_old, layout.pool_slot, INSERTED),
        site=lambda: past.site(layout.pool_slot),
        origin=lambda: past.origin(layout.pool_slot),
        passes=tuple(merged.provenance.passes),
        modified=lambda: _still_there(modified, layout, n_old),
    )
    return remap


def _external(merged: Merged, layout: Layout, remap: Remap) -> Slots:
    """(k,) ascending slots whose reference field is a relocation's business."""
    old = merged.program.external
    out = remap.own[old] if old.size else old
    if merged.external.size:
        out = np.sort(np.concatenate([out, layout.slots(merged.external)]))
    return out[out >= 0]


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


def _references(draft: _Draft) -> References:
    """The references between nodes, as references between slots."""
    state, layout, pool = draft.merged.state, draft.layout, draft.merged.pool
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
        kind[part] = isa.alone(isa.ref_kinds, pool[layout.pool_slot[slot[part]]].view(isa.INSN))
    return References(slot, kind, layout.slots(target))


def _raise_far(
    draft: _Draft, refs: References, rows: NDArray[np.intp], relax: Relax, hint: str
) -> NoReturn:
    errors: list[SlotError] = []
    for row in rows[:_SHOWN].tolist():
        slot, target = int(refs.slot[row]), int(refs.target[row])
        distance = target - slot - 1
        kind = isa.RefKind(int(refs.kind[row]))
        limits = FIELD_LIMITS[kind]
        if kind == isa.RefKind.JUMP16:
            limits = -relax.reach, relax.reach - 1
        limit = limits[distance > 0]
        errors.append(ReachError(draft.where(slot), draft.where(target), distance, limit, hint))
    _raise_first(errors, rows.size)


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
    return moved.with_rows(gather(insn, by_slot), gather(rows, by_slot))


def _column(
    column: Column, by_node: NDArray[Any] | None, layout: Layout, insns: Insns, n_old: int
) -> Column:
    """A column in its new place; where no function is to fill it, on the first use."""
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
