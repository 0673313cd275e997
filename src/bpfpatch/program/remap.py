"""Where every instruction of a program went: the answer that moves every table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .anchors import Anchor, AnchoredTable, OnReplace
from .types import DELETED, INSERTED, LOST, REPLACED, Mask, Slots, compress, frozen

Lazy = NDArray[Any] | Callable[[], NDArray[Any]]
"""An array, or a function of no arguments that makes it on the first use."""


class Remap:
    """Old slots to new slots, by anchor, and new slots back to old ones. Immutable.

    ``own``, ``land`` and ``entry`` answer for the first slot of each
    instruction; the second slot of an ld_imm64 is never a target and has
    LOST in the latter two.

    Attributes:
        own: (n_old,) new slot of the instruction itself, or DELETED, or REPLACED.
        land: (n_old,) new slot where a jump to it arrives, or LOST.
        entry: (n_old,) new slot where a call to it arrives, or LOST.
        bound: (n_old + 1,) new slot of the boundary in front of an old slot.
        orig: (n_new,) old slot, or INSERTED.
        site: (n_new,) old slot at which an inserted instruction went in; for an
            original one its own.
        origin: (n_new,) index into ``passes`` of the pass that inserted it; 0 for
            original ones.
        passes: names; ``passes[0]`` is "" and stands for the input.
        modified: (k,) old slots of instructions that an edit changed in place.

    Each is given as an array, or as a function that makes it when it is first
    asked for; one of another length than the others is then a ValueError.
    """

    def __init__(
        self,
        own: Lazy,
        land: Lazy,
        entry: Lazy,
        bound: Lazy,
        orig: Lazy,
        site: Lazy,
        origin: Lazy,
        passes: tuple[str, ...] = ("",),
        modified: Lazy | None = None,
    ) -> None:
        self.passes = passes
        self._lazy = {"own": own, "land": land, "entry": entry, "bound": bound}
        self._lazy |= {"orig": orig, "site": site, "origin": origin}
        self._lazy["modified"] = np.zeros(0, np.int32) if modified is None else modified

    @cached_property
    def own(self) -> Slots:
        """(n_old,) new slot of the instruction itself, or DELETED, or REPLACED."""
        return self._make("own", np.int32, None)

    @cached_property
    def land(self) -> Slots:
        """(n_old,) new slot where a jump to it arrives, or LOST."""
        return self._make("land", np.int32, self.own.size)

    @cached_property
    def entry(self) -> Slots:
        """(n_old,) new slot where a call to it arrives, or LOST."""
        return self._make("entry", np.int32, self.own.size)

    @cached_property
    def bound(self) -> Slots:
        """(n_old + 1,) new slot of the boundary in front of an old slot."""
        return self._make("bound", np.int32, self.own.size + 1)

    @cached_property
    def orig(self) -> Slots:
        """(n_new,) old slot, or INSERTED."""
        return self._make("orig", np.int32, None)

    @cached_property
    def site(self) -> Slots:
        """(n_new,) old slot at which an instruction went in; for an original one its own."""
        return self._make("site", np.int32, self.orig.size)

    @cached_property
    def modified(self) -> Slots:
        """(k,) old slots of instructions that an edit changed in place, and that are there."""
        return self._make("modified", np.int32, None)

    @cached_property
    def origin(self) -> NDArray[np.uint16]:
        """(n_new,) index into ``passes``; 0 for original instructions."""
        return self._make("origin", np.uint16, self.orig.size)

    def _make(self, name: str, dtype: DTypeLike, size: int | None) -> NDArray[Any]:
        value = self._lazy[name]
        array = frozen(value() if callable(value) else value, dtype)
        if size is not None and array.size != size:
            raise ValueError(f"{name} has {array.size} slots, not {size}")
        del self._lazy[name]  # and what it holds on to
        return array

    @classmethod
    def identity(cls, n: int) -> Remap:
        """The remap of a program of n slots without edits."""
        slots = np.arange(n + 1, dtype=np.int32)
        old = slots[:n]
        return cls(old, old, old, slots, old, old, np.zeros(n, np.uint16))

    def places(self, anchor: Anchor) -> Slots:
        """The (n_old,) array that rows with this anchor follow."""
        return {Anchor.OWN: self.own, Anchor.LAND: self.land, Anchor.ENTRY: self.entry}[anchor]

    def then(self, later: Remap) -> Remap:
        """This remap, followed by another: ``a.then(b)`` is what linearizing twice did.

        Raises:
            ValueError: the two do not meet in one program.
        """
        if later.own.size != self.orig.size:
            raise ValueError(
                f"the first remap ends in {self.orig.size} slots, the second starts from "
                f"{later.own.size}"
            )
        orig = np.where(later.orig >= 0, _pick(self.orig, later.orig), INSERTED)
        n_first = len(self.passes)
        origin = np.where(
            later.origin > 0,
            later.origin + (n_first - 1),
            np.where(later.orig >= 0, _pick(self.origin, later.orig), 0),
        )
        still = self.own[self.own >= 0]
        touched = np.zeros(self.orig.size, bool)
        touched[later.modified] = True
        modified = np.union1d(self.modified, np.flatnonzero(self.own >= 0)[touched[still]])
        own = _chain(self.own, later.own)
        return Remap(
            own=own,
            land=_chain(self.land, later.land),
            entry=_chain(self.entry, later.entry),
            bound=later.bound[self.bound],
            orig=orig,
            site=_pick(self.site, later.site),
            origin=origin,
            passes=self.passes + later.passes[1:],
            modified=modified[own[modified] >= 0],
        )

    def apply(self, table: AnchoredTable) -> AnchoredTable:
        """Move a table's rows to where their instructions went.

        Rows whose instruction was deleted slide to the next live one of the same
        subprog (LAND, ENTRY) or go (OWN). The policy ``on_replace`` is for the
        caller to check, with `broken_rows`: only he can name the place.

        Args:
            table: rows on the old program's slots.

        Returns:
            A new table of at most as many rows, on the new program's slots.

        Source: linux v6.1, kernel/bpf/verifier.c, bpf_adj_linfo_after_remove().
        """
        place = self.places(table.anchor)[table.insn]
        keep = place >= 0
        if table.unique and keep.any():
            keep &= ~_followed_by_same(place, keep)
        end = None if table.end is None else self.bound[table.end][keep]
        return table.with_rows(compress(place, keep), compress(table.rows, keep), end)

    def broken_rows(self, table: AnchoredTable) -> NDArray[np.intp]:
        """Rows of an OWN table whose instruction was replaced or modified, against its policy."""
        if table.anchor is not Anchor.OWN or table.on_replace is not OnReplace.ERROR:
            return np.zeros(0, np.intp)
        touched = np.zeros(self.own.size, bool)
        touched[self.modified] = True
        return np.flatnonzero((self.own[table.insn] == REPLACED) | touched[table.insn])

    @property
    def is_identity(self) -> bool:
        """Whether no instruction moved, came, went or changed."""
        n = self.orig.size
        return (
            self.own.size == n
            and self.modified.size == 0
            and bool((self.orig == np.arange(n)).all())
        )


def _pick(values: NDArray[Any], where: Slots) -> NDArray[Any]:
    """``values[where]``, with a negative index answered by element 0, for np.where to drop."""
    if values.size == 0:
        return np.zeros(where.size, values.dtype)
    return values[np.maximum(where, 0)]


def _chain(first: Slots, second: Slots) -> Slots:
    """Follow ``first`` and then ``second``; what the first lost stays lost."""
    return np.where(first >= 0, _pick(second, first), first)


def _followed_by_same(place: Slots, keep: Mask) -> Mask:
    """Rows after which another kept row sits on the same place."""
    live = np.flatnonzero(keep)
    out = np.zeros(place.size, bool)
    out[live[:-1]] = place[live[:-1]] == place[live[1:]]
    return out


__all__ = ["DELETED", "INSERTED", "LOST", "REPLACED", "Remap"]
