"""Linearize: tables, columns and provenance of the result, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import LostRowError, LostTargetError, ReachError, ValidationError
from bpfpatch.isa import call_subprog, concat, exit_, ja, jump, mov
from bpfpatch.patch import Body, Linearized, PatchList, patchlist
from bpfpatch.program import (
    INSERTED,
    Anchor,
    AnchoredTable,
    Column,
    OnReplace,
    Program,
    Subprogs,
)
from support.cases.rewrite import assert_rewrite, program

NOP = Body.asm("goto +0")
TEXT = """
        r1 = 1              // line 3, reloc a, aux 10
        if r1 == 0 goto out // line 4, note b, aux 11
        call f              // line 5, aux 12
    out:
        exit                // line 6, case c, aux 13
    f:  r0 = 3              // line 9, note d, aux 14
        exit                // line 10, aux 15
"""


# ---- tables ----------------------------------------------------------------------------------


def test_rows_follow_their_anchor():
    """One body in front of everything moves each kind of row as its anchor says."""
    assert_rewrite(
        TEXT,
        lambda p, at: p.insert_before(p.nodes(), NOP),
        """
            goto +0             // line 3
            r1 = 1              // reloc a, aux 10
            goto +0             // line 4
            if r1 == 0 goto out // note b, aux 11
            goto +0             // line 5
            call f              // aux 12
        out:
            goto +0             // line 6, case c
            exit                // aux 13
        f:  goto +0             // line 9
            r0 = 3              // note d, aux 14
            goto +0             // line 10
            exit                // aux 15
        """,
    )


def test_rows_and_prologues():
    """A prologue takes the line record, func info and start along; a jump's row stays."""
    assert_rewrite(
        TEXT,
        lambda p, at: p.prepend([at.out, at.f], NOP),
        """
            r1 = 1              // line 3, reloc a, aux 10
            if r1 == 0 goto out // line 4, note b, aux 11
            call f              // line 5, aux 12
            goto +0             // line 6
        out:
            exit                // case c, aux 13
        f:  goto +0             // line 9
            r0 = 3              // note d, aux 14
            exit                // line 10, aux 15
        """,
    )


def test_replaced_instruction_with_a_relocation():
    """A relocation's instruction cannot be replaced: the error names row, table and way out."""
    patches = PatchList(program(TEXT))
    patches.replace(0, NOP)
    with pytest.raises(LostRowError) as caught:
        patches.linearize()
    error = caught.value
    assert (error.table, error.row, error.slot) == ("reloc", 0, 0)
    assert str(error).startswith(
        "insn 0 in subprog main (lb.c:3) `r1 = 0x1`: was replaced, but row 0 of reloc belongs to it"
    )
    assert "`@orig`" in str(error)


def test_changed_instruction_with_a_relocation():
    """Nor can it be changed in place: a loader checks or fills the old value."""
    patches = PatchList(program(TEXT))
    patches.modify(0, imm=2)
    with pytest.raises(LostRowError, match="was changed in place, but row 0 of reloc belongs"):
        patches.linearize()


def test_body_that_keeps_an_instruction_with_a_relocation():
    """A body that keeps the original keeps its relocation."""
    assert_rewrite(
        TEXT,
        lambda p, at: p.replace(0, Body.asm("r2 = 2; @orig")),
        TEXT.replace("r1 = 1              // line 3,", "r2 = 2 // line 3\n r1 = 1 //"),
    )


def test_deleted_instruction_with_a_relocation():
    """A deleted instruction's relocation goes without complaint, also after a change."""
    patches = PatchList(program(TEXT))
    patches.modify(0, imm=2)
    patches.delete(0)
    assert len(patches.linearize().program.tables["reloc"]) == 0


def test_row_that_may_go():
    """A row with the policy DROP goes with a replaced instruction, and stays on a changed one."""
    patches = PatchList(program(TEXT))
    patches.replace(4, NOP)
    new, _ = patches.linearize()
    assert new.tables["note"].rows.tolist() == ["b"]
    patches = PatchList(program(TEXT))
    patches.modify(4, imm=9)
    new, _ = patches.linearize()
    assert new.tables["note"].rows.tolist() == ["b", "d"]


def test_table_that_is_not_the_programs_own_kind():
    """Rows of any dtype move, structured ones as well."""
    rows = np.array([(1, "x"), (2, "y")], [("number", "i4"), ("name", "U4")])
    table = AnchoredTable(np.array([0, 3], np.int32), rows, Anchor.OWN)
    patches = PatchList(program(TEXT).with_tables(mine=table))
    patches.insert_before(1, NOP)
    moved = patches.linearize().program.tables["mine"]
    assert moved.insn.tolist() == [0, 4]
    assert moved.rows.tolist() == [(1, "x"), (2, "y")]
    assert moved.rows.dtype == rows.dtype


# ---- attached rows ---------------------------------------------------------------------------


def test_attach_adds_a_row():
    """A row can be put on any instruction; the table stays in slot order."""
    patches = PatchList(program(TEXT))
    first = patches.insert_before(0, Body.asm("r5 = 5; r6 = 6"))
    patches.attach("reloc", patches[first + 1], "new")
    patches.attach("reloc", 5, "last")
    table = patches.linearize().program.tables["reloc"]
    assert list(zip(table.insn.tolist(), table.rows.tolist(), strict=True)) == [
        (1, "new"),
        (2, "a"),
        (7, "last"),
    ]
    assert patches.attached().tolist() == [5, first + 1]


def test_attached_row_moves_on():
    """What is done after attaching moves an attached row as it moves the others."""
    patches = PatchList(program(TEXT))
    patches.attach("note", 2, "x")
    patches.insert_before(2, NOP)
    table = patches.linearize().program.tables["note"]
    assert table.insn.tolist() == [1, 3, 5]


def test_attached_row_goes_with_its_instruction():
    """A deleted instruction takes an attached row along, whatever the policy."""
    patches = PatchList(program(TEXT))
    for table in ("note", "reloc"):
        patches.attach(table, 2, "x")
    patches.delete(2)
    new, _ = patches.linearize()
    assert new.tables["note"].rows.tolist() == ["b", "d"]
    assert new.tables["reloc"].rows.tolist() == ["a"]


@pytest.mark.parametrize("is_inserted", [False, True])
def test_attached_row_has_its_tables_policy(is_inserted):
    """An attached row loses its instruction no more easily than the others of its table."""
    for spoil in (lambda p, n: p.replace(n, NOP), lambda p, n: p.modify(n, imm=7)):
        patches = PatchList(program(TEXT))
        node = patches.insert_before(3, Body.asm("r7 = 7")) if is_inserted else 4
        patches.attach("reloc", node, "x")
        spoil(patches, node)
        with pytest.raises(LostRowError) as caught:
            patches.linearize()
        assert (caught.value.table, caught.value.row) == ("reloc", 1)
    patches = PatchList(program(TEXT))
    node = patches.insert_before(3, Body.asm("r7 = 7")) if is_inserted else 5
    patches.attach("note", node, "x")
    patches.replace(node, Body.asm("exit"))
    assert patches.linearize().program.tables["note"].rows.tolist() == ["b", "d"]


def test_change_before_attaching():
    """A row that is attached to a changed instruction belongs to it as it is now."""
    patches = PatchList(program(TEXT))
    patches.modify(4, imm=0)
    patches.attach("reloc", 4, "x")
    assert patches.linearize().program.tables["reloc"].rows.tolist() == ["a", "x"]


def test_attached_row_of_a_changed_and_deleted_instruction():
    """What is deleted takes its attached rows along, also after a change."""
    patches = PatchList(program(TEXT))
    patches.attach("reloc", 4, "x")
    patches.modify(4, imm=0)
    patches.delete(4)
    assert patches.linearize().program.tables["reloc"].rows.tolist() == ["a"]


# ---- columns ---------------------------------------------------------------------------------


def with_column(fill) -> PatchList:
    """A list with a column of each slot's number."""
    return PatchList(program(TEXT).with_columns(mine=Column(np.arange(6), fill)))


def test_inserted_instruction_has_the_columns_default():
    """Aux travels with its instruction; an inserted one gets the default."""
    patches = with_column(-1)
    patches.insert_before([1, 4], NOP)
    patches.delete(2)
    assert patches.linearize().program.columns["mine"].values.tolist() == [0, -1, 1, 3, -1, 4, 5]


def test_inserted_instruction_has_a_computed_value():
    """Or a value that is computed from it: here, whether it defines a 32-bit register."""
    given = program(TEXT)
    column = Column(np.zeros(6, bool), isa.defines_32)
    patches = PatchList(given.with_columns(zext=column))
    patches.insert_before(0, Body.asm("w2 = 2; r3 = 3; r4 = 4 ll; w5 = w6"))
    values = patches.linearize().program.columns["zext"].values
    assert values.tolist() == [True, False, False, False, True] + [False] * 6


def test_second_slot_of_a_column():
    """A column has a value for the second slot of an ld_imm64 too."""
    given = program("r1 = 5 ll; exit").with_columns(mine=Column(np.array([7, 8, 9])))
    patches = PatchList(given)
    patches.insert_before(2, Body.asm("r2 = 6 ll"))
    assert patches.linearize().program.columns["mine"].values.tolist() == [7, 8, 0, 0, 9]


def test_aux_is_by_node_and_writable():
    """Aux shows a column by node; what is written there is in the result."""
    patches = with_column(-1)
    first = patches.insert_before(1, Body.asm("r5 = 5; r6 = 6"))
    values = patches.aux("mine")
    assert values.tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    values[first + 1] = 66
    values[5] = 55
    patches.insert_before(1, NOP)
    assert patches.aux("mine").tolist() == [0, 1, 2, 3, 4, 55, -1, 66, -1]
    result = patches.linearize().program.columns["mine"]
    assert result.values.tolist() == [0, -1, 66, -1, 1, 2, 3, 4, 55]
    assert result.fill == -1


def test_aux_does_not_touch_the_program():
    """Writing to aux leaves the program's own column as it was."""
    patches = with_column(0)
    patches.aux("mine")[:] = 9
    assert patches.program.columns["mine"].values.tolist() == [0, 1, 2, 3, 4, 5]


def test_change_in_place_after_insertion():
    """A computed value is that of the instruction that was put in, whoever looked at it when."""
    for look in (False, True):
        patches = PatchList(program(TEXT))
        patches.add_column("zext", Column(np.zeros(6, bool), isa.defines_32))
        first = patches.insert_before(0, Body.asm("w2 = 2"))
        if look:
            patches.aux("zext")
        patches.modify(first, code=0xB7)
        assert patches.linearize().program.columns["zext"].values[0]


def test_add_column():
    """A pass may bring a column, and put it in place of one."""
    patches = PatchList(program(TEXT))
    first = patches.insert_before(0, NOP)
    patches.add_column("seen", Column(np.zeros(6, bool), True))
    assert patches.aux("seen").tolist() == [False] * 6 + [True]
    patches.add_column("seen", Column(np.ones(6, np.int8), 5))
    assert patches.aux("seen")[first] == 5
    assert patches.linearize().program.columns["seen"].values.tolist() == [5, 1, 1, 1, 1, 1, 1]


def test_columns_of_any_shape():
    """A column's value may be an array."""
    given = program(TEXT).with_columns(pair=Column(np.ones((6, 2)), 0.5))
    patches = PatchList(given)
    patches.insert_after(5, Body.asm("exit"))
    values = patches.linearize().program.columns["pair"].values
    assert values.shape == (7, 2)
    assert values[6].tolist() == [0.5, 0.5]


# ---- the rest of a program -------------------------------------------------------------------


def test_external_slots_follow():
    """A slot whose field a relocation owns keeps its number there, and moves."""
    code = concat([call_subprog(-1), mov(0, 0), call_subprog(-1), exit_()])
    given = Program(code, external=np.array([0, 2], np.int32))
    patches = PatchList(given)
    patches.insert_before(0, NOP)
    patches.delete(2)
    new, _ = patches.linearize()
    assert new.external.tolist() == [1]
    assert new.insns["imm"][1] == -1
    assert new.refs.slot.tolist() == [0]


def test_sections_names_and_roots_follow():
    """Sections keep their names, and their subprogs; roots stay roots."""
    subprogs = Subprogs(
        np.array([0, 1, 2], np.int32),
        ("a", "b", "c"),
        np.array([0, 0, 2], np.int32),
        np.array([False, True, True]),
    )
    given = Program(concat([exit_(), exit_(), exit_()]), subprogs, sections=("one", "two", "three"))
    patches = PatchList(given)
    patches.insert_before(1, NOP)
    new, _ = patches.linearize()
    assert new.subprogs.start.tolist() == [0, 1, 3]
    assert new.sections == ("one", "two", "three")
    assert new.section_bounds.tolist() == [0, 3, 3, 4]
    patches.delete_subprog("a")
    new, _ = patches.linearize()
    assert new.subprogs.names == ("b", "c")
    assert new.subprogs.section.tolist() == [0, 2]
    assert new.subprogs.is_root.tolist() == [True, True]
    assert new.section_bounds.tolist() == [0, 2, 2, 3]


def test_strings_stay():
    """The strings that line records index are kept."""
    given = program(TEXT)
    patches = PatchList(given)
    patches.insert_before(3, NOP)
    new, _ = patches.linearize()
    assert new.strings == given.strings
    assert str(new.source(4)) == "lb.c:6"


def test_result_unpacks_as_a_pair():
    """What linearize gives is a program and a remap."""
    result = PatchList(program(TEXT)).linearize()
    new, remap = result
    assert isinstance(result, Linearized)
    assert (new, remap) == (result.program, result.remap)


# ---- provenance of passes --------------------------------------------------------------------


def test_passes_sign_what_they_insert():
    """Every instruction says which pass it comes from."""
    patches = PatchList(program(TEXT))
    patches.insert_before(0, NOP)
    with patches.as_pass("one"):
        first = patches.insert_before(1, Body.asm("r1 = 1; r2 = 2"))
        assert patches.first_node_of_pass == 7
        with patches.as_pass("inner"):
            patches.insert_after(first, NOP)
        patches.insert_after(1, NOP)
    patches.insert_after(2, NOP)
    with patches.as_pass("one"):
        patches.insert_after(3, Body.asm("exit"))
    _, remap = patches.linearize()
    names = [remap.passes[k] for k in remap.origin]
    assert remap.passes == ("", "one", "inner", "one")
    assert names == ["", "", "one", "inner", "one", "", "one", "", "", "", "one", "", ""]
    assert (remap.orig == INSERTED).tolist() == [
        bool(mark) for mark in (1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 0)
    ]


def test_a_pass_that_fails_is_over():
    """After an error in a pass, what is inserted is not said to come from it."""
    patches = PatchList(program(TEXT))
    with pytest.raises(RuntimeError), patches.as_pass("bad"):
        raise RuntimeError
    patches.insert_before(0, NOP)
    _, remap = patches.linearize()
    assert remap.origin.tolist() == [0] * 7


def test_first_node_without_a_pass():
    """Without passes, the first node that could be inserted is the first behind the originals."""
    assert PatchList(program(TEXT)).first_node_of_pass == 6


# ---- what linearize refuses ------------------------------------------------------------------


def far(n_gap: int) -> PatchList:
    """A jump over a gap, with lines and a subprog's name."""
    text = "if r1 == 0 goto out // line 7\n" + "r0 = 0\n" * n_gap + "out: exit // line 9\n"
    return PatchList(program(text))


def test_reach_error_names_both_ends():
    """A jump that is too far shows both ends with subprog, source line and instruction."""
    patches = far(30000)
    body = Body.of(*[mov(2, 2)] * 3000)
    patches.insert_after(5, body)
    with pytest.raises(ReachError) as caught:
        patches.linearize(None)
    error = caught.value
    assert (error.slot, error.target.slot, error.distance, error.limit) == (0, 33001, 33000, 32767)
    assert error.where.subprog == error.target.subprog == "main"
    assert (error.where.source, error.target.source) == ("lb.c:7", "lb.c:9")
    assert error.target.text == "exit"
    text = str(error)
    assert "insn 0 in subprog main (lb.c:7)" in text
    assert "the reference to insn 33001 in subprog main (lb.c:9) `exit` spans 33000 slots" in text
    assert "its field holds 32767; without relax=None (--no-relax) it is made to fit" in text


def test_reach_errors_come_together():
    """All jumps that are too far are known to the first one's error, in slot order."""
    code = concat([jump("==", 1, 0, 30001), ja(30000), np.tile(mov(0, 0), 30000), exit_()])
    patches = PatchList(Program(code))
    patches.insert_after(2, Body.of(*[mov(2, 2)] * 3000))
    with pytest.raises(ReachError, match="and 1 more of this kind") as caught:
        patches.linearize(None)
    assert caught.value.slot == 0
    assert [other.slot for other in caught.value.others] == [1]


def test_failed_linearize_can_be_mended():
    """After an error the list is as it was: the edit that was too much can be taken back."""
    patches = far(30000)
    first = patches.insert_after(5, Body.of(*[mov(2, 2)] * 3000))
    with pytest.raises(ReachError):
        patches.linearize(None)
    patches.delete(np.arange(first, first + 3000))
    assert patches.linearize().remap.is_identity


def test_lost_target_error():
    """A jump whose target is gone with all that follows it says what to do about it."""
    patches = PatchList(program("if r1 == 0 goto out // line 7\n exit\n out: exit"))
    patches.delete(2)
    with pytest.raises(LostTargetError) as caught:
        patches.linearize()
    assert str(caught.value.where) == "insn 0 in subprog main (lb.c:7) `if r1 == 0x0 goto +0x1`"
    assert "delete this instruction too, or replace the target instead" in str(caught.value)
    patches.delete(0)
    assert len(patches.linearize().program) == 1


def test_error_about_an_inserted_instruction():
    """An inserted instruction's place is that of the instruction at which it went in."""
    patches = PatchList(program(TEXT))
    patches.insert_after(3, Body.asm("goto @end"))
    with pytest.raises(LostTargetError) as caught:
        patches.linearize()
    assert caught.value.slot == 4
    assert str(caught.value.where).startswith("insn 4 in subprog main (lb.c:6)")


@pytest.mark.parametrize("max_runs", [0, 8])
def test_body_cannot_jump_into_another_subprog(monkeypatch, max_runs):
    """A jump stays inside its subprog, however its edit was merged."""
    monkeypatch.setattr(patchlist, "MAX_RUNS", max_runs)
    patches = PatchList(program(TEXT))
    patches.insert_before(1, Body.asm("if r1 == 1 goto f", f=4))
    with pytest.raises(ValidationError, match="jumps out of its subprog, to insn 5 in subprog f"):
        patches.linearize()


@pytest.mark.parametrize("text", ["call it", "r1 = it ll"])
def test_body_cannot_call_a_subprogs_middle(text):
    """A call and a function's address are of a subprog's start."""
    patches = PatchList(program(TEXT))
    patches.insert_before(0, Body.asm(text, it=5))
    with pytest.raises(ValidationError, match="where no subprog starts"):
        patches.linearize()
    patches = PatchList(program(TEXT))
    patches.insert_before(5, Body.asm(text.replace("it", "@orig")))
    with pytest.raises(ValidationError, match="where no subprog starts"):
        patches.linearize()


def test_what_the_input_had_is_not_refused():
    """A jump between subprogs that was there from the start is the input's own affair."""
    given = Program(
        concat([ja(1), exit_(), exit_()]), subprogs=Subprogs.from_starts({0: "a", 2: "b"})
    )
    patches = PatchList(given)
    patches.insert_before(1, NOP)
    new, _ = patches.linearize()
    assert new.refs.target.tolist() == [3, 2]


def test_policy_of_a_row_is_its_tables():
    """ERROR is the policy of a table that says nothing."""
    assert AnchoredTable(np.zeros(0), np.zeros(0), Anchor.OWN).on_replace is OnReplace.ERROR


def test_linearize_is_kept_by_replace():
    """A program made from a result, as by a dataclass's replace, decodes its references anew."""
    new, _ = PatchList(program(TEXT)).linearize()
    assert replace(new).refs.target.tolist() == new.refs.target.tolist()


def test_attached_row_of_a_node_that_a_change_names_later():
    """Rows of one table may come before and after a change: only the earlier one is bound to it."""
    patches = PatchList(program(TEXT))
    patches.attach("reloc", 5, "later")
    patches.modify(4, imm=0)
    patches.attach("reloc", 4, "x")
    patches.modify(2, dst=1)
    assert patches.linearize().program.tables["reloc"].rows.tolist() == ["a", "x", "later"]
    patches.modify(4, imm=1)
    with pytest.raises(LostRowError, match="a row attached to reloc belongs to it") as caught:
        patches.linearize()
    assert (caught.value.row, caught.value.slot) == (2, 4)
    assert caught.value.where.source == "lb.c:9"
