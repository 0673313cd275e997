"""Deleting keeps line info, func info, subprogs and labels right, up to a whole subprog."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch.errors import LostTargetError, OptionError
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import FUNC_INFO, LINE_INFO, LOST, Anchor, AnchoredTable, Program
from support.cases.rewrite import assert_rewrite, program

LINES = """
    .globl f
        r0 = 1      // line 10
        r0 = 2
        r0 = 3      // line 11
        exit        // line 12
    f:  r0 = 4      // line 20
        exit        // line 21
"""


def test_line_info_slides_to_the_next_live_instruction():
    """A deleted instruction's line record moves to the next one that had none."""
    assert_rewrite(
        LINES,
        lambda p, at: p.delete(0),
        """
        .globl f
            r0 = 2      // line 10
            r0 = 3      // line 11
            exit        // line 12
        f:  r0 = 4      // line 20
            exit        // line 21
        """,
    )


def test_line_info_last_wins():
    """Of several line records that meet on one instruction, the last one is kept."""
    assert_rewrite(
        LINES,
        lambda p, at: p.delete([0, 1, 2]),
        """
        .globl f
            exit        // line 12
        f:  r0 = 4      // line 20
            exit        // line 21
        """,
    )


def test_line_info_last_wins_over_what_was_deleted():
    """A record that slides onto an instruction with a record of its own gives way to it."""
    assert_rewrite(
        LINES,
        lambda p, at: p.delete(2),
        """
        .globl f
            r0 = 1      // line 10
            r0 = 2
            exit        // line 12
        f:  r0 = 4      // line 20
            exit        // line 21
        """,
    )


def test_line_info_past_the_end_goes():
    """A record with no live instruction after it in its subprog goes; none enters the next one."""
    assert_rewrite(
        LINES,
        lambda p, at: p.delete([2, 3]),
        """
        .globl f
            r0 = 1      // line 10
            r0 = 2
        f:  r0 = 4      // line 20
            exit        // line 21
        """,
    )


def test_line_info_of_a_subprogs_first_instruction():
    """After deleting it, the subprog still begins with a line record: the kernel demands one."""
    assert_rewrite(
        LINES,
        lambda p, at: p.delete(at.f),
        """
        .globl f
            r0 = 1      // line 10
            r0 = 2
            r0 = 3      // line 11
            exit        // line 12
        f:  exit        // line 21
        """,
    )


def test_func_info_slides_with_the_subprogs_start():
    """func_info stays exactly at the subprog's start."""
    patches = PatchList(program(LINES))
    patches.delete([0, 4])
    new, _ = patches.linearize()
    assert new.subprogs.start.tolist() == [0, 3]
    assert new.tables[FUNC_INFO].insn.tolist() == [0, 3]
    assert new.tables[FUNC_INFO].rows.tolist() == ["main", "f"]


CALLS = """
        call f          // line 1
        call g          // line 2
        exit            // line 3
    f:  r0 = 1          // line 10, case in_f, note in_f, aux 4
        exit            // line 11
    g:  r0 = 2          // line 20, case in_g
        exit            // line 21
"""
WITHOUT_F = """
        call g          // line 2
        exit            // line 3
    g:  r0 = 2          // line 20, case in_g
        exit            // line 21
"""


def with_symbols(given: Program) -> Program:
    """With a table of function symbols, start and end, over the subprogs."""
    subprogs = given.subprogs
    return given.with_tables(
        symbols=AnchoredTable(
            subprogs.start,
            np.array(subprogs.names),
            Anchor.ENTRY,
            end=subprogs.ends(len(given)),
        )
    )


def test_whole_subprog_goes_with_everything_on_it():
    """A deleted subprog takes its func_info, lines, labels, rows and aux along."""

    def edit(p, at):
        p.delete_subprog("f")
        p.delete(0)

    remap = assert_rewrite(CALLS.replace(", aux 4", ""), edit, WITHOUT_F)
    assert remap.entry[3:5].tolist() == [LOST, LOST]
    assert remap.land[3:5].tolist() == [LOST, LOST]


def test_whole_subprog_goes_with_its_symbol():
    """A deleted subprog's symbol goes; the others' starts and sizes are right."""
    patches = PatchList(with_symbols(program(CALLS)))
    patches.delete_subprog("f")
    patches.delete(0)
    table = patches.linearize().program.tables["symbols"]
    assert table.rows.tolist() == ["main", "g"]
    assert table.insn.tolist() == [0, 2]
    assert table.end.tolist() == [2, 4]


def test_symbol_ends_with_its_subprog():
    """A function symbol's size shrinks and grows with what is in it."""
    patches = PatchList(with_symbols(program(CALLS)))
    patches.insert_after(2, Body.asm("exit"))
    patches.insert_before(3, Body.asm("r1 = 1; r2 = 2"))
    patches.delete(6)
    table = patches.linearize().program.tables["symbols"]
    assert table.insn.tolist() == [0, 4, 8]
    assert table.end.tolist() == [4, 8, 9]


def test_last_subprog_goes():
    """Deleting the last subprog ends the program in front of it."""
    patches = PatchList(with_symbols(program(CALLS)))
    patches.delete_subprog("g")
    patches.delete(1)
    new, remap = patches.linearize()
    assert len(new) == 4
    assert new.tables["symbols"].end.tolist() == [2, 4]
    assert remap.bound.tolist() == [0, 1, 1, 2, 3, 4, 4, 4]


def test_subprog_that_is_called_cannot_go():
    """Deleting a subprog and leaving a call of it is an error that names the call."""
    patches = PatchList(program(CALLS))
    patches.delete_subprog("f")
    with pytest.raises(LostTargetError) as caught:
        patches.linearize()
    assert caught.value.slot == 0
    assert caught.value.where.subprog == "main"
    assert caught.value.where.source == "lb.c:1"


def test_delete_subprog_takes_what_was_inserted_into_it():
    """What edits put into a subprog goes with it."""
    patches = PatchList(program(CALLS))
    patches.prepend(3, Body.asm("r6 = 6"))
    patches.insert_after(4, Body.asm("exit"))
    patches.delete_subprog("f")
    patches.delete(0)
    assert patches.linearize().program.to_bytes() == program(WITHOUT_F).to_bytes()


def test_delete_subprog_twice_is_nothing():
    """A subprog that is gone already has no nodes."""
    patches = PatchList(program(CALLS))
    patches.delete_subprog("f")
    assert patches.subprog_nodes("f").size == 0
    patches.delete_subprog("f")
    assert len(patches) == 5


@pytest.mark.parametrize("name", ["h", ""])
def test_delete_subprog_wants_a_name_that_is_there(name):
    """A name that no subprog has is an error that lists those that there are."""
    with pytest.raises(OptionError, match="there are: main, f, g"):
        PatchList(program(CALLS)).delete_subprog(name)


def test_delete_subprog_wants_one():
    """Where several subprogs have one name, none is deleted."""
    given = program(CALLS)
    given = Program(given.insns)  # three starts, all without a name
    with pytest.raises(OptionError, match="3 subprogs are called ''"):
        PatchList(given).delete_subprog("")


def test_everything_goes():
    """A program may be deleted entirely; its tables are empty then."""
    patches = PatchList(with_symbols(program(CALLS)))
    patches.delete(patches.nodes())
    new, remap = patches.linearize()
    assert (len(new), len(new.subprogs), len(patches)) == (0, 0, 0)
    assert [len(table) for table in new.tables.values()] == [0] * len(new.tables)
    assert remap.bound.tolist() == [0] * 8


def test_deleted_rows_of_relocations_go():
    """A relocation, CO-RE record or aux value on a deleted instruction goes with it."""
    assert_rewrite(
        """
            r1 = 1      // reloc a, note b, aux 5
            r2 = 2      // reloc c, note d, aux 6
            exit
        """,
        lambda p, at: p.delete(0),
        """
            r2 = 2      // reloc c, note d, aux 6
            exit
        """,
    )


def test_labels_slide_with_jumps():
    """A jump table's row lands where a jump to its instruction does."""
    assert_rewrite(
        """
            if r1 == 0 goto one
            exit
        one:
            r0 = 1      // case one
        two:
            r0 = 2      // case two
            goto two
        """,
        lambda p, at: p.delete(at.one),
        """
            if r1 == 0 goto two
            exit
        two:
            r0 = 2      // case one, case two
            goto two
        """,
    )


def test_line_records_stay_on_strict_slots():
    """However much is deleted, line_info stays strictly ascending, as the kernel demands."""
    patches = PatchList(program(LINES))
    patches.delete([0, 2, 4])
    slots = patches.linearize().program.tables[LINE_INFO].insn
    assert (np.diff(slots) > 0).all()


def test_deleting_what_was_inserted_undoes_it():
    """A body that is deleted again leaves no trace in the code or its tables."""
    given = program(CALLS)
    patches = PatchList(given)
    first = patches.insert_after(0, Body.asm("r1 = 1; r2 = 2"))
    patches.delete([first, first + 1])
    new, remap = patches.linearize()
    assert new.to_bytes() == given.to_bytes()
    assert remap.is_identity
