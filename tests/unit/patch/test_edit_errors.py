"""Edits that make no sense are refused, with what, where and the way out."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import BpfPatchError, EditError, OptionError, ValidationError
from bpfpatch.isa import concat, exit_, ja, make, mov
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Anchor, AnchoredTable, Program
from support.cases.rewrite import program

TEXT = """
        r1 = 0x1122334455 ll    // line 3, reloc map
        if r1 == 0 goto out     // line 4
        r0 = 1
    out:
        exit                    // line 5
"""
NOP = Body.asm("goto +0")
VERBS = ["insert_before", "prepend", "insert_after", "replace", "delete", "modify"]


def edit(patches: PatchList, verb: str, site):
    """An edit by this verb, of whatever kind."""
    if verb == "delete":
        return patches.delete(site)
    if verb == "modify":
        return patches.modify(site, dst=1)
    return getattr(patches, verb)(site, NOP)


@pytest.fixture
def patches() -> PatchList:
    """A list of the program above."""
    return PatchList(program(TEXT))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("in_bulk", [False, True])
class TestSites:
    def test_never_there(self, patches, verb, in_bulk):
        """A node that never was says how many there are."""
        for node in (-1, 5, 2**40):
            with pytest.raises(EditError, match="no such node; the list has 5") as caught:
                edit(patches, verb, [node, 0] if in_bulk else node)
            assert caught.value.slot == node

    def test_deleted(self, patches, verb, in_bulk):
        """A deleted node cannot be edited; the error shows subprog, source line and instruction."""
        patches.delete(2)
        with pytest.raises(EditError, match="is deleted already") as caught:
            edit(patches, verb, [0, 2] if in_bulk else 2)
        assert caught.value.slot == 2
        assert str(caught.value.where) == "insn 2 in subprog main (lb.c:4) `if r1 == 0x0 goto +0x1`"

    def test_replaced(self, patches, verb, in_bulk):
        """Nor can a replaced one: what came in its place has nodes of its own."""
        patches.replace(3, NOP)
        with pytest.raises(EditError, match="what came in its place has nodes of its own"):
            edit(patches, verb, [0, 3] if in_bulk else 3)

    def test_second_slot(self, patches, verb, in_bulk):
        """The second slot of an ld_imm64 is no place to edit."""
        with pytest.raises(EditError, match="second half of this ld_imm64"):
            edit(patches, verb, [1] if in_bulk else 1)

    def test_inserted_second_slot(self, patches, verb, in_bulk):
        """The same holds for an ld_imm64 that an edit put in."""
        first = patches.insert_before(3, Body.asm("r2 = 5 ll"))
        with pytest.raises(EditError, match="second half of this ld_imm64"):
            edit(patches, verb, [first + 1] if in_bulk else first + 1)


@pytest.mark.parametrize("verb", ["replace", "delete"])
def test_site_named_twice(patches, verb):
    """What goes can go only once, also in one go."""
    with pytest.raises(EditError, match="is named twice among the sites") as caught:
        edit(patches, verb, [3, 0, 3])
    assert caught.value.slot == 3
    assert len(patches) == 4


@pytest.mark.parametrize("sites", [[1.0], [True, False], ["a"], [[0, 2]], None, 1.5])
def test_sites_are_whole_numbers(patches, sites):
    """Sites that are no numbers of nodes, as a mask, are refused."""
    with pytest.raises(OptionError, match="sites are an array of nodes"):
        patches.insert_before(sites, NOP)


def test_handle_of_another_list(patches):
    """A handle is good for its own list only, alone or among others."""
    other = PatchList(patches.program)
    for verb in VERBS:
        for site in (other[0], [other[0]], (0, other[2])):
            with pytest.raises(OptionError, match="of another list"):
                edit(patches, verb, site)
    with pytest.raises(OptionError, match="of another list"):
        patches.attach("reloc", other[0], "x")


def test_one_site_takes_one_body(patches):
    """A list of bodies is for a list of sites."""
    with pytest.raises(OptionError, match="one site takes one body"):
        patches.insert_before(0, [NOP])


def test_as_many_bodies_as_sites(patches):
    """Bodies and sites are paired one by one."""
    with pytest.raises(OptionError, match="1 bodies for 2 sites; give one body, or one a site"):
        patches.insert_before([0, 2], [NOP])


def test_deleted_inserted_instruction_shows_its_text(patches):
    """An error about an instruction that was put in shows that instruction."""
    first = patches.insert_before(3, Body.asm("r5 = 5; r6 = 6"))
    patches.delete(first + 1)
    with pytest.raises(EditError) as caught:
        patches.delete(first + 1)
    assert str(caught.value.where) == f"insn {first + 1} `r6 = 0x6`"


@pytest.mark.parametrize("node", [-1, 5])
def test_handle_of_nothing(patches, node):
    """There is no handle of a node that never was."""
    with pytest.raises(EditError, match="no such node"):
        patches[node]
    with pytest.raises(EditError, match="no such node"):
        patches.word(node)


# ---- programs that cannot be edited ----------------------------------------------------------


@pytest.mark.parametrize(
    ("insns", "message"),
    [
        ([make(0xFF), exit_()], "opcode 0xff is not in the table"),
        ([ja(5), exit_()], "refers to a slot outside of the program's 2"),
        ([ja(-2), exit_()], "refers to a slot outside of the program's 2"),
        ([ja(1), isa.ld_imm64(1, 2), exit_()], "refers to slot 2, the second one of an ld_imm64"),
    ],
)
def test_program_that_cannot_be_edited(insns, message):
    """A program whose references are not all known and sound is refused as a whole."""
    with pytest.raises(ValidationError, match=message):
        PatchList(Program(concat(insns)))


@pytest.mark.parametrize("slot", [-1, 1, 4])
def test_program_with_a_row_on_nothing(slot):
    """So is one with a table row that sits on no instruction."""
    given = Program(concat([isa.ld_imm64(1, 2), mov(0, 0), exit_()]))
    table = AnchoredTable(np.array([slot], np.int32), np.array([7]), Anchor.OWN)
    with pytest.raises(ValidationError, match="row 0 of mine sits on this slot, which"):
        PatchList(given.with_tables(mine=table))


def test_all_reasons_at_once():
    """All reasons are reported together, in slot order."""
    given = Program(concat([ja(9), make(0xFF), ja(-9), exit_()]))
    with pytest.raises(ValidationError) as caught:
        PatchList(given)
    assert [error.slot for error in caught.value.violations] == [0, 1, 2]
    assert isinstance(caught.value, BpfPatchError)


# ---- modify ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "fields"),
    [
        (2, {"off": 5}),  # renumber a jump
        (2, {"code": 0xB7}),  # unmake a jump
        (3, {"code": 0x15}),  # make one
        (0, {"code": 0xB7}),  # unmake an ld_imm64
        (3, {"code": 0x18}),  # make one
        (0, {"src": 4}),  # make it a function's address
    ],
)
def test_modify_cannot_touch_references(patches, site, fields):
    """What makes, unmakes or renumbers a reference or an ld_imm64 is a replacement."""
    before = patches.word(site)
    with pytest.raises(EditError, match="replace the instruction") as caught:
        patches.modify(site, **fields)
    assert caught.value.slot == site
    assert patches.word(site) == before


def test_modify_cannot_renumber_a_call():
    """Nor can it change where a call goes, or make a helper's call of it."""
    patches = PatchList(program("call f\n exit\n f: exit"))
    for fields in ({"imm": 0}, {"src": 0}):
        with pytest.raises(EditError, match="replace the instruction"):
            patches.modify(0, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 1}, "no field 'size'; an instruction has code, dst, src, off, imm"),
        ({"dst": 16}, "dst holds 0 to 15"),
        ({"src": -1}, "src holds 0 to 15"),
        ({"code": 256}, "code holds 0 to 255"),
        ({"off": 1 << 15}, "off holds -32768 to 32767"),
        ({"off": -(1 << 15) - 1}, "off holds -32768 to 32767"),
        ({"imm": 1 << 31}, "imm holds -2147483648 to 2147483647"),
        ({"imm": 1.5}, "imm takes one whole number, or one a site"),
        ({"imm": np.array([1, 2])}, "imm takes one whole number, or one a site"),
        ({"code": 0xFF}, "opcode"),
    ],
)
def test_modify_checks_its_fields(patches, fields, message):
    """A field that is not there, or a value that does not fit, changes nothing."""
    before = patches.word(3)
    with pytest.raises((OptionError, EditError), match=message):
        patches.modify(3, **fields)
    assert patches.word(3) == before
    assert patches.n_modified == 0


# ---- attach ----------------------------------------------------------------------------------


def test_attach_wants_a_table_of_the_program(patches):
    """An unknown table is an error that lists those that there are."""
    with pytest.raises(
        OptionError,
        match=r"no table 'rel' \(did you mean reloc\?\); there are: func_info, line_info, ",
    ):
        patches.attach("rel", 0, "x")
    with pytest.raises(OptionError, match="there are: none"):
        PatchList(Program(exit_())).attach("rel", 0, "x")


@pytest.mark.parametrize("node", [1, 99])
def test_attach_wants_a_live_node(patches, node):
    """A row needs an instruction."""
    with pytest.raises(EditError):
        patches.attach("reloc", node, "x")


def test_attach_wants_rows_of_the_instruction_itself():
    """Rows that follow jumps or calls, are one an instruction, or have an end are not attached."""
    at, rows = np.array([0], np.int32), np.array([7])
    given = Program(exit_()).with_tables(
        land=AnchoredTable(at, rows, Anchor.LAND),
        entry=AnchoredTable(at, rows, Anchor.ENTRY),
        one=AnchoredTable(at, rows, Anchor.OWN, unique=True),
        range=AnchoredTable(at, rows, Anchor.OWN, end=np.array([1], np.int32)),
    )
    for name in ("land", "entry", "one", "range"):
        with pytest.raises(
            OptionError, match="only rows that follow their instruction alone can be attached"
        ):
            PatchList(given).attach(name, 0, 8)


def test_attach_wants_a_row_of_the_tables_kind():
    """A row that the table cannot hold is refused at once."""
    table = AnchoredTable(np.array([0], np.int32), np.array([7]), Anchor.OWN)
    patches = PatchList(Program(exit_()).with_tables(mine=table))
    with pytest.raises(OptionError, match="'x' is not a row of 'mine'"):
        patches.attach("mine", 0, "x")
    assert patches.attached().size == 0


# ---- columns ---------------------------------------------------------------------------------


def test_unknown_column(patches):
    """A column that is not there is an error that lists those that there are."""
    with pytest.raises(OptionError, match="no column 'seen'; there are: none"):
        patches.aux("seen")


def test_column_of_another_length(patches):
    """A column has one value a slot of the original program."""
    from bpfpatch.program import Column

    with pytest.raises(OptionError, match="column 'seen' has 3 values for 5 slots"):
        patches.add_column("seen", Column(np.zeros(3)))
