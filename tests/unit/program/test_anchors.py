"""Anchored tables: what their constructor checks, and how rows move."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch.errors import LostRowError, SlotError, Where
from bpfpatch.program import DELETED, LOST, REPLACED, Anchor, AnchoredTable, Remap
from bpfpatch.program.anchors import lost_row


def table(insn, anchor=Anchor.OWN, **more) -> AnchoredTable:
    """A table whose rows are numbers from 10 on."""
    return AnchoredTable(np.array(insn, np.int32), np.arange(len(insn)) + 10, anchor, **more)


def test_as_many_anchors_as_rows():
    """Each row has one anchor."""
    with pytest.raises(ValueError, match="2 anchors for 3 rows"):
        AnchoredTable(np.array([1, 2]), np.arange(3), Anchor.OWN)


def test_anchors_are_one_dimensional():
    """Anchors are a flat array of slots."""
    with pytest.raises(ValueError, match="anchors for"):
        AnchoredTable(np.array([[1], [2]]), np.arange(2), Anchor.OWN)


def test_as_many_ends_as_rows():
    """Each row has an end, or none has."""
    with pytest.raises(ValueError, match="1 ends for 2 rows"):
        table([1, 2], end=np.array([3]))


@pytest.mark.parametrize("slots", [[1, 1], [2, 1], [0, 3, 3]])
def test_unique_rows_ascend(slots):
    """A unique table's rows sit on ascending slots; the first that does not is named."""
    with pytest.raises(ValueError, match=rf"row {len(slots) - 1} sits on slot {slots[-1]}, not"):
        table(slots, unique=True)


def test_other_rows_come_in_any_order():
    """Several rows on one slot, in any order, are fine elsewhere."""
    assert len(table([3, 1, 3])) == 3


def test_arrays_are_read_only():
    """A table's arrays cannot be written."""
    made = table([1, 2], end=np.array([3, 4]))
    for array in (made.insn, made.rows, made.end):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_with_rows_keeps_the_kind():
    """Other rows of the same kind of table have its anchor and its policy."""
    made = table([1, 5], Anchor.ENTRY, unique=True).with_rows(np.array([4]), np.array([7]))
    assert (made.anchor, made.unique, made.insn.tolist()) == (Anchor.ENTRY, True, [4])
    assert made.end is None


# Slots 0..5: 1 deleted, 3 replaced by a body at 2, 5 deleted with nothing behind it.
REMAP = Remap(
    own=np.array([0, DELETED, 1, REPLACED, 4, DELETED]),
    land=np.array([0, 1, 1, 2, 4, LOST]),
    entry=np.array([0, 1, 1, 2, 3, LOST]),
    bound=np.array([0, 1, 1, 2, 3, 5, 5]),
    orig=np.array([0, 2, -1, -1, 4]),
    site=np.array([0, 2, 3, 4, 4]),
    origin=np.array([0, 0, 1, 1, 0]),
    passes=("", "p"),
)
SLOTS = [0, 1, 2, 3, 4, 5]


def test_own_rows_follow_the_instruction():
    """OWN rows go with a deleted or replaced instruction."""
    moved = REMAP.apply(table(SLOTS))
    assert moved.insn.tolist() == [0, 1, 4]
    assert moved.rows.tolist() == [10, 12, 14]


def test_land_rows_slide():
    """LAND rows slide to where a jump arrives; several may meet."""
    moved = REMAP.apply(table(SLOTS, Anchor.LAND))
    assert moved.insn.tolist() == [0, 1, 1, 2, 4]
    assert moved.rows.tolist() == [10, 11, 12, 13, 14]


def test_entry_rows_slide():
    """ENTRY rows slide to where a call arrives."""
    moved = REMAP.apply(table(SLOTS, Anchor.ENTRY))
    assert moved.insn.tolist() == [0, 1, 1, 2, 3]


def test_of_unique_rows_the_last_wins():
    """Of several rows that meet on one place, a unique table keeps the last."""
    moved = REMAP.apply(table(SLOTS, Anchor.ENTRY, unique=True))
    assert moved.insn.tolist() == [0, 1, 2, 3]
    assert moved.rows.tolist() == [10, 12, 13, 14]


def test_unique_table_that_loses_all():
    """A unique table may lose every row."""
    assert len(REMAP.apply(table([5], Anchor.ENTRY, unique=True))) == 0
    assert len(REMAP.apply(table([], Anchor.ENTRY, unique=True))) == 0


def test_ends_follow_boundaries():
    """A row's end goes to where the boundary in front of that slot went."""
    moved = REMAP.apply(table([0, 2, 5], Anchor.ENTRY, end=np.array([2, 5, 6])))
    assert moved.insn.tolist() == [0, 1]
    assert moved.end.tolist() == [1, 5]


def test_lost_row_carries_the_numbers():
    """The error about a lost row has its table, row and place."""
    error = lost_row("relocs", 3, SlotError(Where(7, "f"), "was replaced"))
    assert isinstance(error, LostRowError)
    assert (error.table, error.row, error.slot) == ("relocs", 3, 7)
    assert str(error).startswith("insn 7 in subprog f: was replaced; ")
