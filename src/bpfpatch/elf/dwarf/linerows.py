"""Where the rows of a line table go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .move import CodeMove, Place

if TYPE_CHECKING:
    from .lines import Row, Sequence

Slots64 = NDArray[np.int64]


def move_rows(sequence: Sequence, move: CodeMove) -> Sequence:
    """The rows of a sequence after an edit.

    Rows at one address belong to the instructions from there to the next such
    address, and go with them: where none of those is left, they are gone. An
    instruction that was put far from its site, as a far jump's island is, gets
    the row of its site.

    Returns:
        A sequence with rows on the new addresses; without rows where no
        instruction of it is left.
    """
    address = np.array([row.address for row in sequence.rows], np.int64)
    is_first = np.append(True, address[1:] != address[:-1])
    first = np.flatnonzero(is_first)
    edges = np.append(address[first], sequence.end)
    bounds = move.starts_of(sequence.code, edges)
    is_kept = bounds[:-1] < bounds[1:]
    if not is_kept.any():
        return replace(sequence, rows=[])
    last = np.append(first[1:], address.size)
    strays = _strays(sequence, move, edges, bounds)
    slots, groups = bounds[:-1][is_kept], np.flatnonzero(is_kept)
    pieces = _merged(slots, groups, strays)
    place = move.local(np.array([slot for slot, _, _ in pieces], np.int64)).tolist()
    rows: list[Row] = []
    for (_, group, is_start), new in zip(pieces, place, strict=True):
        if is_start:
            mine = sequence.rows[int(first[group]) : int(last[group])]
            rows += [row._replace(address=new) for row in mine]
        else:
            row = sequence.rows[int(last[group]) - 1]
            rows.append(row.resumed()._replace(address=new))
    end = move.end(Place(sequence.code, sequence.end))
    return replace(sequence, rows=rows, end=max(end, rows[-1].address))


def _strays(
    sequence: Sequence, move: CodeMove, edges: Slots64, bounds: Slots64
) -> list[tuple[int, int]]:
    """Runs of new slots whose site is in another group than where they stand.

    Returns:
        (slot, group), from which on it is that group, until the next; the group in which the
        slot stands where that is so again.
    """
    start, end = int(bounds[0]), int(bounds[-1])
    slot = np.arange(start, end)
    here = np.searchsorted(bounds, slot, side="right") - 1
    site = move.remap.site[start:end].astype(np.int64)
    old = move.old
    is_ours = (site >= old.starts[sequence.code]) & (site < old.starts[sequence.code + 1])
    byte = old.local_bytes(np.where(is_ours, site, old.starts[sequence.code]))
    there = np.searchsorted(edges, byte, side="right") - 1
    is_ours &= (there >= 0) & (there < edges.size - 1)
    there = np.where(is_ours, there, here)
    if (there == here).all():
        return []
    is_edge = np.append(True, (there[1:] != there[:-1]) | (here[1:] != here[:-1]))
    is_stray = there != here
    is_back = np.append(False, is_stray[:-1]) & ~is_stray
    picked = np.flatnonzero(is_edge & (is_stray | is_back))
    return list(zip(slot[picked].tolist(), there[picked].tolist(), strict=True))


def _merged(
    slots: Slots64, groups: NDArray[np.intp], strays: list[tuple[int, int]]
) -> list[tuple[int, int, bool]]:
    """(slot, group, whether the group starts there), by slot."""
    wanted = dict(strays)
    out: list[tuple[int, int, bool]] = []
    known = set()
    for slot, group in zip(slots.tolist(), groups.tolist(), strict=True):
        known.add(slot)
        other = wanted.get(slot, group)
        out.append((slot, other, other == group))
    out += [(slot, group, False) for slot, group in strays if slot not in known]
    return sorted(out)
