"""Remap: its checks, its composition, and what it says of rows that it breaks."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch.isa import concat, exit_, mov
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import DELETED, REPLACED, Anchor, AnchoredTable, OnReplace, Program, Remap

NOP = Body.asm("goto +0")


def some() -> Program:
    """Four slots."""
    return Program(concat([mov(0, 0), mov(1, 1), mov(2, 2), exit_()]))


def test_identity():
    """The identity maps every slot to itself."""
    same = Remap.identity(3)
    assert same.is_identity
    for name in ("own", "land", "entry", "orig", "site"):
        assert getattr(same, name).tolist() == [0, 1, 2]
    assert same.bound.tolist() == [0, 1, 2, 3]
    assert same.origin.tolist() == [0, 0, 0]
    assert same.passes == ("",)


@pytest.mark.parametrize("edit", ["insert_before", "replace", "delete", "modify"])
def test_not_the_identity(edit):
    """An insertion, replacement, deletion or change in place is not the identity."""
    patches = PatchList(some())
    if edit == "delete":
        patches.delete(1)
    elif edit == "modify":
        patches.modify(1, imm=5)
    else:
        getattr(patches, edit)(1, NOP)
    assert not patches.linearize().remap.is_identity


def test_deleting_the_last_is_not_the_identity():
    """A shorter program is another one, also where all that is left stays in place."""
    patches = PatchList(some())
    patches.delete(3)
    assert not patches.linearize().remap.is_identity


def test_places():
    """Each anchor has its array."""
    patches = PatchList(some())
    patches.prepend(1, NOP)
    _, remap = patches.linearize()
    assert remap.places(Anchor.OWN).tolist() == [0, 2, 3, 4]
    assert remap.places(Anchor.LAND).tolist() == [0, 2, 3, 4]
    assert remap.places(Anchor.ENTRY).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("name", ["land", "entry", "bound", "site", "origin"])
def test_lengths_belong_together(name):
    """Arrays whose lengths do not fit are refused, at the latest when they are asked for."""
    arrays = {
        "own": np.zeros(2),
        "land": np.zeros(2),
        "entry": np.zeros(2),
        "bound": np.zeros(3),
        "orig": np.zeros(4),
        "site": np.zeros(4),
        "origin": np.zeros(4),
    }
    arrays[name] = np.zeros(7)
    for _ in range(2):
        with pytest.raises(ValueError, match="slots"):
            getattr(Remap(**arrays), name)


def test_arrays_are_read_only():
    """A remap's arrays cannot be written."""
    remap = PatchList(some()).linearize().remap
    for name in ("own", "land", "entry", "bound", "orig", "site", "origin", "modified"):
        array = getattr(remap, name)
        assert not array.flags.writeable, name


def two_rounds(first, second) -> Remap:
    """Two lists, one behind the other, composed."""
    one = PatchList(some())
    first(one)
    program, before = one.linearize()
    two = PatchList(program)
    second(two)
    return before.then(two.linearize().remap)


def test_composition_of_insertions():
    """What the first round inserted has the site that it had there, after the second too."""
    remap = two_rounds(lambda p: p.insert_before(2, NOP), lambda p: p.insert_after(2, NOP))
    assert remap.orig.tolist() == [0, 1, -1, -1, 2, 3]
    assert remap.site.tolist() == [0, 1, 2, 2, 2, 3]
    assert remap.own.tolist() == [0, 1, 4, 5]
    assert remap.land.tolist() == [0, 1, 2, 5]


def test_composition_of_deletions():
    """What either round deleted or replaced is gone, and says how."""
    remap = two_rounds(
        lambda p: (p.delete(0), p.replace(1, NOP)), lambda p: (p.delete(0), p.replace(1, NOP))
    )
    assert remap.own.tolist() == [DELETED, REPLACED, REPLACED, 1]
    assert remap.entry.tolist() == [0, 0, 0, 1]


def test_composition_of_changes():
    """Changes in place of both rounds count, but not those of what has gone."""
    remap = two_rounds(
        lambda p: p.modify([0, 1], imm=9), lambda p: (p.delete(0), p.modify([1, 3], dst=3))
    )
    assert remap.modified.tolist() == [1, 3]


def test_composition_of_changes_after_moves():
    """A change in the second round is told by the first program's slot."""
    remap = two_rounds(lambda p: p.insert_before(0, NOP), lambda p: p.modify(3, imm=1))
    assert remap.modified.tolist() == [2]


def test_composition_of_passes():
    """Passes of both rounds are told apart; what came in without a pass has none."""

    def first(p):
        with p.as_pass("one"):
            p.insert_before(0, NOP)

    def second(p):
        p.insert_before(1, NOP)
        with p.as_pass("two"):
            p.insert_before(3, NOP)

    remap = two_rounds(first, second)
    assert remap.passes == ("", "one", "two")
    assert [remap.passes[k] for k in remap.origin] == ["one", "", "", "", "two", "", ""]


def test_composition_down_to_nothing():
    """A program may vanish, and a remap of nothing composes."""
    remap = two_rounds(lambda p: p.delete([0, 1, 2, 3]), lambda p: None)
    assert remap.own.tolist() == [DELETED] * 4
    assert remap.orig.size == 0


def test_composition_needs_one_program():
    """Two remaps that do not meet are refused, with both numbers."""
    with pytest.raises(ValueError, match="ends in 3 slots, the second starts from 4"):
        Remap.identity(3).then(Remap.identity(4))


def rows_broken(anchor, on_replace) -> list[int]:
    """Which of four rows, one a slot, a replacement of 1 and a change of 2 break."""
    patches = PatchList(some())
    patches.replace(1, NOP)
    patches.modify(2, imm=5)
    patches.delete(0)
    table = AnchoredTable(np.arange(4), np.arange(4), anchor, on_replace=on_replace)
    return patches.linearize().remap.broken_rows(table).tolist()


def test_broken_rows():
    """Rows that may not lose their instruction are broken by replacing or changing it."""
    assert rows_broken(Anchor.OWN, OnReplace.ERROR) == [1, 2]


@pytest.mark.parametrize(
    ("anchor", "on_replace"),
    [
        (Anchor.OWN, OnReplace.DROP),
        (Anchor.LAND, OnReplace.ERROR),
        (Anchor.ENTRY, OnReplace.ERROR),
    ],
)
def test_no_broken_rows(anchor, on_replace):
    """Rows that may, or that follow jumps and calls, are not broken."""
    assert rows_broken(anchor, on_replace) == []
