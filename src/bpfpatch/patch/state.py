"""What a patch list is between edits: an order of nodes, and what sits on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program import Column, Program
from bpfpatch.program.types import LOST, Mask, Slots, fixed

from .attached import Attached
from .body import Body, To
from .log import Edits
from .provenance import Provenance


@dataclass(slots=True, eq=False)
class ListState:
    """The merged state of a patch list.

    A node is a slot of the pool: the original program's slots first, so that
    a node that is not inserted is its original slot, then every inserted
    body's. The pool is kept elsewhere: nothing here looks at an instruction.

    All places are present ones: a jump to an instruction that a body has
    captured is held as a reference to that body's first node. So any number of
    edits, merged in any portions, equal as many linearizations in between.

    Attributes:
        n_pool: nodes below this one have been merged.
        order: (k,) live nodes in program order.
        ref_node: (r,) referring nodes, ascending; dead ones may be among them.
        ref_target: (r,) nodes that they refer to, or LOST.
        ref_is_entry: (r,) whether the reference is a call, not a jump.
        land: (n_original,) node where a jump to an original slot now arrives, or LOST.
        entry: (n_original,) node where a call to it now arrives, or LOST.
        starts: (m,) original slots at which subprogs start.
        is_pristine: nothing was edited yet, so that ``land`` and ``entry`` are identities.
        has_foreign_refs: an edit has brought in a reference that could leave its subprog.
        has_wide: there is, or was, an ld_imm64: else every node takes one slot.
    """

    n_pool: int
    order: Slots
    ref_node: Slots
    ref_target: Slots
    ref_is_entry: Mask
    land: Slots
    entry: Slots
    starts: Slots
    is_pristine: bool = True
    has_foreign_refs: bool = False
    has_wide: bool = False

    @classmethod
    def of(cls, program: Program) -> ListState:
        """The state of a program without edits."""
        n_slots = len(program)
        slots = np.arange(n_slots, dtype=np.int32)
        slots.flags.writeable = False
        second = program.second_slots
        refs = program.refs
        return cls(
            n_pool=n_slots,
            order=fixed(slots[~second]) if second.any() else slots,
            ref_node=refs.slot,
            ref_target=refs.target,
            ref_is_entry=refs.is_entry,
            land=slots,
            entry=slots,
            starts=program.subprogs.start,
            has_wide=bool(second.any()),
        )

    def positions(self) -> Slots:
        """(n_pool,) index of each live node in ``order``; -1 elsewhere."""
        if self.is_pristine and self.order.size == self.n_pool:  # each node stands at its number
            return self.order
        out = np.full(self.n_pool, -1, np.int32)
        out[self.order] = np.arange(self.order.size, dtype=np.int32)
        return out

    def subprog_heads(self) -> Slots:
        """Nodes at which the surviving subprogs now start, in program order."""
        heads = self.entry[self.starts]
        return np.compress(heads != LOST, heads)

    def targets_of(self, nodes: Slots) -> Slots:
        """(n,) what each of these nodes, which must hold references, refers to."""
        return self.ref_target[np.searchsorted(self.ref_node, nodes)]


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A patch list whose edits are all merged, with all that goes into the new program.

    Attributes:
        program: the original.
        state: its nodes, in order.
        pool: (n_pool or more,) instructions as words.
        provenance: which site and pass inserted nodes come from.
        replaced: nodes whose place a body took.
        modified: nodes that were changed in place.
        rows: attached rows by table.
        external: inserted nodes whose reference field is a relocation's business.
        columns: the columns by name, with the original program's values.
        values: by column, (n_pool,) values by node, or None before the first look.
    """

    program: Program
    state: ListState
    pool: NDArray[np.uint64]
    provenance: Provenance
    replaced: Slots
    modified: Slots
    rows: Mapping[str, Attached]
    external: Slots
    columns: Mapping[str, Column]
    values: Mapping[str, NDArray[Any] | None]


@dataclass(frozen=True, slots=True, eq=False)
class NewRefs:
    """References that a run of edits brings in.

    Attributes:
        node: (r,) referring nodes.
        is_entry: (r,) calls, not jumps.
        to: (r,) uint8 of `To`.
        value: (r,) node for LOCAL and NODE; elsewhere 0.
        edit: (r,) index of the edit among those that were asked for.
    """

    node: Slots
    is_entry: Mask
    to: Slots
    value: Slots
    edit: NDArray[np.intp]


class RefTable:
    """The references of some bodies, by body, to be given to any portion of a run's edits."""

    __slots__ = ("_count", "_entries", "_slots", "_start", "_tos", "_values")

    def __init__(self, bodies: list[Body]) -> None:
        self._count = np.array([len(body.refs) for body in bodies], np.intp)
        listed = [(r.slot, r.to, r.value, r.is_entry) for body in bodies for r in body.refs]
        rows = np.array(listed, np.int32).reshape(-1, 4)
        self._slots, self._tos, self._values, entries = rows.T.copy()
        self._entries = entries != 0
        self._start = np.cumsum(self._count) - self._count

    def count(self, edits: Edits) -> int:
        """How many references some edits bring in."""
        if edits.body.strides == (0,):
            return len(edits) * int(self._count[edits.body[0]])
        return int(self._count[edits.body].sum())

    def of(self, edits: Edits) -> NewRefs:
        """All references of some edits' bodies, with local ones resolved to nodes."""
        per_edit = self._count[edits.body]
        edit = np.repeat(np.arange(len(edits)), per_edit)
        within = np.arange(edit.size) - np.repeat(np.cumsum(per_edit) - per_edit, per_edit)
        row = within + self._start[edits.body[edit]]
        first, site = edits.first[edit], edits.site[edit]
        to, value, is_entry = self._tos[row], self._values[row], self._entries[row]
        names_site = (to == To.ORIG) | ((to == To.NODE) & (value == site))
        # A body's jump to its site reaches the instruction, whatever this very edit captures; a
        # call, which can only go to where a subprog starts, is captured as other calls are.
        to = np.where(names_site, np.where(is_entry, To.NODE, To.ORIG), to)
        value = np.where(names_site, site, value)
        return NewRefs(
            node=first + self._slots[row],
            is_entry=is_entry,
            to=to,
            value=np.where(to == To.LOCAL, first + value, value),
            edit=edit,
        )
