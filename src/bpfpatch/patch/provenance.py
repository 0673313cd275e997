"""Which original slot, and which pass, an inserted node comes from."""

from __future__ import annotations

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

    def origin(self, pool_slots: Slots) -> NDArray[np.uint16]:
        """(n,) index into ``passes``; 0 for original slots."""
        if len(self._marks) == 1:
            return np.zeros(pool_slots.size, np.uint16)
        since = np.array([mark for mark, _ in self._marks], np.int32)
        index = np.array([index for _, index in self._marks], np.uint16)
        out = index[np.searchsorted(since, pool_slots, side="right") - 1]
        out[pool_slots < self.n_original] = 0
        return out

    def site(self, pool_slots: Slots) -> Slots:
        """(n,) the original slot at which an inserted node went in, through any nesting."""
        out = pool_slots.copy()
        open_rows = np.flatnonzero(out >= self.n_original)
        if not open_rows.size:
            return out
        first, site = np.concatenate(self._first), np.concatenate(self._site)
        # A site was there before its edit, so its node is smaller: each round goes down, and
        # doubling the step makes the rounds few however deep the nesting is.
        parent = site.copy()
        inserted = np.flatnonzero(parent >= self.n_original)
        while inserted.size:
            parent[inserted] = parent[np.searchsorted(first, parent[inserted], side="right") - 1]
            inserted = inserted[parent[inserted] >= self.n_original]
        out[open_rows] = parent[np.searchsorted(first, out[open_rows], side="right") - 1]
        return out
