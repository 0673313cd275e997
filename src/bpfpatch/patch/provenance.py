"""Which original slot, and which pass, an inserted node comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program.types import Slots

from .log import Edits


class Provenance:
    """The history that inserted nodes keep.

    Args:
        n_original: slots of the original program; higher nodes are inserted ones.
    """

    __slots__ = ("_first", "_marks", "_site", "current", "latest_mark", "n_original", "passes")

    def __init__(self, n_original: int) -> None:
        self.n_original = n_original
        self.passes: list[str] = [""]
        self.current = 0
        self.latest_mark = n_original
        self._marks: list[tuple[int, int]] = [(0, 0)]  # from this node on, this pass
        self._first: list[Slots] = []
        self._site: list[Slots] = []

    def enter(self, name: str, next_node: int) -> None:
        """From ``next_node`` on, nodes come from a new run of a pass."""
        self.passes.append(name)
        self.latest_mark = next_node
        self.resume(len(self.passes) - 1, next_node)

    def resume(self, index: int, next_node: int) -> None:
        """From ``next_node`` on, nodes come from a pass that was entered before."""
        self.current = index
        self._marks.append((next_node, index))

    def record(self, edits: Edits) -> None:
        """Remember at which site each body went in."""
        self._first.append(edits.first)
        self._site.append(edits.site)

    def with_nodes(self, name: str, nodes: Slots, sites: Slots) -> Provenance:
        """The same history, and (n,) more nodes of a pass, each with its site."""
        out = Provenance(self.n_original)
        out.passes, out._marks = [*self.passes], [*self._marks]
        out._first, out._site = [*self._first, nodes], [*self._site, sites]
        if nodes.size:
            out.enter(name, int(nodes[0]))
        return out

    def snapshot(self) -> Past:
        """The history up to now, for a remap to ask later."""
        return Past(
            self.n_original,
            np.array([mark for mark, _ in self._marks], np.int32),
            np.array([index for _, index in self._marks], np.uint16),
            tuple(self._first),
            tuple(self._site),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """A history that does not change any more.

    Attributes:
        n_original: slots of the original program.
        since: nodes from which on a pass inserted.
        index: that pass's index into the history's ``passes``.
        first: first nodes of bodies, ascending, in parts.
        site_parts: the sites at which they went in.
    """

    n_original: int
    since: Slots
    index: NDArray[np.uint16]
    first: tuple[Slots, ...]
    site_parts: tuple[Slots, ...]

    def origin(self, pool_slots: Slots) -> NDArray[np.uint16]:
        """(n,) index into ``passes``; 0 for original slots."""
        return self.index[np.searchsorted(self.since, pool_slots, side="right") - 1]

    def site(self, pool_slots: Slots) -> Slots:
        """(n,) the original slot at which an inserted node went in, through any nesting."""
        out = pool_slots.copy()
        rows = np.flatnonzero(out >= self.n_original)
        if not rows.size:
            return out
        first, parent = np.concatenate(self.first), np.concatenate(self.site_parts)
        inserted = np.flatnonzero(parent >= self.n_original)
        # A site was there before its edit, so its node is smaller: each round goes down. What a
        # round has found serves the next, so that the rounds are few however deep the nesting.
        while inserted.size:
            parent[inserted] = parent[np.searchsorted(first, parent[inserted], side="right") - 1]
            inserted = inserted[parent[inserted] >= self.n_original]
        out[rows] = parent[np.searchsorted(first, out[rows], side="right") - 1]
        return out
