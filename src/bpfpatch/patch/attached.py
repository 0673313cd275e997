"""Rows that edits add to a program's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program.types import Mask, Slots


@dataclass(frozen=True, slots=True, eq=False)
class Attached:
    """The rows that were attached to one table.

    Attributes:
        node: (n,) the nodes that they sit on.
        rows: n values for the table's dtype.
        is_changed: (n,) whether the node was changed in place after the row came.
    """

    node: Slots
    rows: Sequence[Any]
    is_changed: Mask


class AttachedRows:
    """All attached rows, and when each came: a later change of its instruction breaks it."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[int, Any, int]]] = {}

    def add(self, table: str, nodes: Slots, row: Any, now: int) -> None:
        """Add a row to each node; ``now`` counts the changes in place up to here."""
        self._rows.setdefault(table, []).extend((node, row, now) for node in nodes.tolist())

    def nodes(self) -> Slots:
        """(k,) nodes that have rows, each once."""
        nodes = [node for rows in self._rows.values() for node, _, _ in rows]
        return np.unique(np.array(nodes, np.int32))

    def by_table(self, changes: Sequence[Slots], n_pool: int) -> dict[str, Attached]:
        """The rows of each table.

        Args:
            changes: nodes of each change in place, in order.
            n_pool: nodes are below this one.
        """
        if not self._rows:
            return {}
        latest = np.full(n_pool, -1, np.int32)
        for when, nodes in enumerate(changes):
            latest[nodes] = when
        return {table: _gathered(rows, latest) for table, rows in self._rows.items()}


def _gathered(rows: list[tuple[int, Any, int]], latest: NDArray[np.int32]) -> Attached:
    node = np.array([node for node, _, _ in rows], np.int32)
    since = np.array([since for _, _, since in rows], np.int32)
    return Attached(node, [row for _, row, _ in rows], np.greater_equal(latest[node], since))
