"""Whose arrays are whose: what goes in may be changed afterwards, what comes out may not."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Column, Program, Remap
from bpfpatch.program.types import fixed
from support.cases.rewrite import program

NOP = Body.asm("goto +0")
TEXT = "r0 = 0; if r0 == 0 goto out; r0 = 1; out: exit"


def _moves(n_insns: int, **columns: Column) -> Program:
    moves = np.tile(isa.mov(isa.R0, 0), n_insns)
    moves[-1] = isa.exit_()[0]
    return Program(moves, columns=columns)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_sites_may_change_after_the_call(is_frozen: bool) -> None:
    """Also sites that could not be written to when they were given."""
    patches = PatchList(_moves(5))
    sites = np.array([1, 2], np.int32)
    sites.flags.writeable = not is_frozen
    patches.insert_before(sites, NOP)
    sites.flags.writeable = True
    sites[:] = 3
    assert (patches.linearize().program.insns["code"] == isa.JA).tolist() == (
        [False, True, False, True, False, False, False]
    )


def test_the_lists_own_nodes_are_taken_as_they_are() -> None:
    """Whole, in part, and through a look that is older than the latest edit."""
    patches = PatchList(_moves(4))
    old = patches.nodes()
    patches.insert_before(old[1:], NOP)
    patches.insert_after(patches.nodes()[:2], NOP)
    patches.delete(old[2:3])
    is_nop = patches.linearize().program.insns["code"] == isa.JA
    assert is_nop.tolist() == [False, True, True, True, False, True, True, False]


@pytest.mark.parametrize("is_edited", [False, True])
def test_what_is_handed_out_cannot_be_written_to(is_edited: bool) -> None:
    """A view, references, nodes and what bulk edits return."""
    patches = PatchList(program(TEXT))
    out = [patches.insert_before(patches.nodes(), NOP)] if is_edited else []
    view, refs = patches.view(), patches.linearize().program.refs
    out += [view.insns, view.node, view.ref_slot, view.ref_target, view.land, patches.nodes()]
    out += [refs.slot, refs.target, refs.kind]
    assert not any(array.flags.writeable for array in out)


def test_columns_of_many_linearizations() -> None:
    """Each result stands for itself, and none keeps what is before it."""
    given = _moves(3, a=Column(np.array([1, 2, 3]), fill=7))
    for _ in range(1_100):
        given = PatchList(given).linearize().program
    patches = PatchList(given)
    patches.insert_before(0, NOP)
    assert patches.linearize().program.columns["a"].values.tolist() == [7, 1, 2, 3]


def test_values_of_a_column_are_its_own() -> None:
    """Whoever changes the array that a column was made of changes no column."""
    values = np.arange(3)
    column = Column(values)
    done = PatchList(_moves(3, a=column)).linearize().program
    values[:] = 77
    assert column.values.tolist() == done.columns["a"].values.tolist() == [0, 1, 2]
    assert not done.columns["a"].values.flags.writeable
    with pytest.raises(AttributeError):
        column.fill = 9  # type: ignore[misc]
    assert repr(column) == "Column(3 slots, fill=0)"


def test_column_of_two_dimensions_at_very_many_nodes() -> None:
    """It is what the whole column says at them."""
    n_slots = 70_000
    values = np.arange(2 * n_slots).reshape(n_slots, 2)
    patches = PatchList(_moves(n_slots, pair=Column(values, fill=np.array([5, 6]))))
    assert (patches.aux_at("pair", patches.nodes()) == values).all()
    patches.insert_before([n_slots - 1], NOP)
    moved = patches.linearize().program.columns["pair"].values
    assert moved[-2:].tolist() == [[5, 6], values[-1].tolist()]


def test_fill_that_does_not_fit() -> None:
    """It matters where it is needed, and at once."""
    given = _moves(2, a=Column(np.zeros(2, np.uint8), fill=-1))
    assert PatchList(given).linearize().program.columns["a"].values.tolist() == [0, 0]
    patches = PatchList(given)
    patches.insert_before(0, NOP)
    with pytest.raises(OverflowError):
        patches.linearize()


def test_remap_that_could_not_be_asked() -> None:
    """What fails once is asked again, not answered with nothing."""
    answers = iter([MemoryError(), np.array([1], np.int32)])

    def modified() -> np.ndarray:
        answer = next(answers)
        if isinstance(answer, MemoryError):
            raise answer
        return answer

    slots = np.arange(3, dtype=np.int32)
    remap = Remap(slots, slots, slots, np.arange(4), slots, slots, slots, modified=modified)
    with pytest.raises(MemoryError):
        _ = remap.modified
    assert remap.modified.tolist() == [1]


def test_fixed_copies_what_somebody_can_write_to() -> None:
    """An array that is read-only down to what it stands on is taken as it is."""
    owner = np.arange(4)
    view = owner[:2]
    view.flags.writeable = False
    assert fixed(view) is not view
    owner.flags.writeable = False
    part = owner[1:]
    assert fixed(part) is part
    assert fixed(owner) is owner
    lent = np.frombuffer(memoryview(bytearray(4)).toreadonly(), np.uint8)
    assert fixed(lent) is not lent
    assert not fixed(lent).flags.writeable
