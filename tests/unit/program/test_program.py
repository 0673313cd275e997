"""Programs: immutable, with subprogs, sections, source lines and places."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import FormatError
from bpfpatch.isa import call_subprog, concat, exit_, ja, ld_func, mov
from bpfpatch.program import LINE, LINE_INFO, Anchor, AnchoredTable, Column, Program, Subprogs

CALLS = concat([call_subprog(3), ld_func(1, 3), exit_(), exit_(), mov(0, 0), exit_()])
STRINGS = b"\0/src/lb.c\0  int x = 1;\0"


def with_lines(slots, lines, **more) -> Program:
    """The program above with line records."""
    rows = np.zeros(len(slots), LINE)
    rows["file_name_off"], rows["line_off"] = 1, 11
    rows["line_col"] = np.array(lines, np.int64) << 10 | 5
    table = AnchoredTable(np.array(slots, np.int32), rows, Anchor.ENTRY, unique=True)
    return Program(CALLS, tables={LINE_INFO: table}, strings=STRINGS, **more)


def test_bytes_in_and_out():
    """to_bytes gives back what from_bytes took, for both byte orders."""
    data = CALLS.tobytes()
    assert Program.from_bytes(data).to_bytes() == data
    big = Program.from_bytes(data).to_bytes("big")
    assert big != data
    assert Program.from_bytes(big, "big").to_bytes() == data


def test_bytes_that_are_no_program():
    """A length that is no multiple of 8 is a format error with a byte offset."""
    with pytest.raises(FormatError) as caught:
        Program.from_bytes(bytes(17))
    assert caught.value.byte_off == 16


def test_program_is_immutable():
    """Neither a program nor its arrays and mappings can be changed."""
    given = with_lines([0], [3])
    with pytest.raises(FrozenInstanceError):
        given.insns = CALLS
    with pytest.raises(ValueError, match="read-only"):
        given.insns["imm"] = 3
    with pytest.raises(TypeError):
        given.tables["x"] = None
    with pytest.raises(TypeError):
        given.columns["x"] = None


def test_derived_subprogs():
    """Without subprogs, slot 0 and all that is called or has its address taken are ones."""
    given = Program(CALLS)
    assert given.subprogs.start.tolist() == [0, 4, 5]
    assert given.subprogs.names == ("", "", "")
    assert given.subprogs.is_root.tolist() == [True, False, False]
    assert Program(concat([])).subprogs.start.tolist() == []


def test_external_reference_is_none():
    """A reference that a relocation owns makes no subprog."""
    given = Program(CALLS, external=np.array([0]))
    assert given.subprogs.start.tolist() == [0, 5]
    assert given.refs.slot.tolist() == [1]


def test_dangling_call_makes_no_subprog():
    """Nor does a call to nowhere."""
    assert Program(concat([call_subprog(7), exit_()])).subprogs.start.tolist() == [0]


def test_references_are_decoded():
    """References are slots, with their kinds."""
    refs = Program(concat([ja(1), CALLS, isa.gotol(-2)])).refs
    assert refs.slot.tolist() == [0, 1, 2, 8]
    assert refs.target.tolist() == [2, 5, 6, 7]
    kinds = isa.RefKind
    assert refs.kind.tolist() == [kinds.JUMP16, kinds.CALL, kinds.FUNC, kinds.JUMP32]
    assert refs.is_entry.tolist() == [False, True, True, False]


def test_far_reference_is_outside():
    """A 32-bit distance beyond every slot is outside, and does not wrap round."""
    refs = Program(concat([isa.gotol(2**31 - 1), isa.gotol(-(2**31)), exit_()])).refs
    assert refs.target.tolist() == [4, -1]


def test_columns_have_one_value_a_slot():
    """A column of another length is refused."""
    with pytest.raises(ValueError, match="column 'x' has 2 values for 7 slots"):
        Program(CALLS, columns={"x": Column(np.zeros(2))})


def test_with_tables_and_columns():
    """A table or column can be added, or put in another's place."""
    table = AnchoredTable(np.array([0]), np.array([1]), Anchor.OWN)
    given = Program(CALLS).with_tables(a=table).with_tables(b=table)
    assert set(given.tables) == {"a", "b"}
    given = given.with_columns(x=Column(np.zeros(7))).with_columns(x=Column(np.ones(7)))
    assert given.columns["x"].values.tolist() == [1] * 7
    assert set(given.tables) == {"a", "b"}


def test_second_slots():
    """The second slot of an ld_imm64 is known."""
    assert np.flatnonzero(Program(CALLS).second_slots).tolist() == [2]


def test_section_bounds():
    """A section ends where the next starts; one without code is empty."""
    subprogs = Subprogs(np.array([0, 4, 5]), ("a", "b", "c"), np.array([0, 2, 2]))
    given = Program(CALLS, subprogs, sections=("x", "y", "z"))
    assert given.section_bounds.tolist() == [0, 4, 4, 7]


# ---- subprogs --------------------------------------------------------------------------------


def test_subprogs_from_starts():
    """Slot 0 always starts a subprog; the others come in order."""
    made = Subprogs.from_starts({5: "b", 3: "a"})
    assert made.start.tolist() == [0, 3, 5]
    assert made.names == ("", "a", "b")
    assert len(made) == 3


def test_subprog_of_slots():
    """Each slot is in the last subprog that starts at or before it."""
    made = Subprogs.from_starts({3: "a", 5: "b"})
    assert made.of(np.array([0, 2, 3, 4, 5, 9])).tolist() == [0, 0, 1, 1, 2, 2]
    assert made.ends(10).tolist() == [3, 5, 10]


def test_a_program_without_code_has_no_ends():
    """Where there are no subprogs, none ends."""
    empty = np.zeros(0, np.int32)
    assert Subprogs(empty, (), empty, empty.astype(bool)).ends(0).tolist() == []


def test_subprog_outside_of_the_program():
    """A subprog starts in the program."""
    with pytest.raises(ValueError, match="starts at slot 7 of a program of 7"):
        Program(CALLS, Subprogs.from_starts({7: "f"}))


@pytest.mark.parametrize("starts", [[1], [0, 0], [0, 5, 3]])
def test_subprog_starts_ascend_from_zero(starts):
    """Starts that do not are refused."""
    n = len(starts)
    with pytest.raises(ValueError, match="subprog starts must ascend from 0"):
        Subprogs(np.array(starts), ("",) * n, np.zeros(n))


def test_subprogs_come_section_by_section():
    """Sections are ranges of the code."""
    with pytest.raises(ValueError, match="in the order of their sections"):
        Subprogs(np.array([0, 1]), ("a", "b"), np.array([1, 0]))


@pytest.mark.parametrize(
    ("names", "section", "is_root"),
    [(("a",), [0, 0], [1, 0]), (("a", "b"), [0], [1, 0]), (("a", "b"), [0, 0], [1])],
)
def test_subprogs_have_all_of_each(names, section, is_root):
    """Each subprog has a start, a name, a section and a root mark."""
    with pytest.raises(ValueError, match="2 starts, "):
        Subprogs(np.array([0, 1]), names, np.array(section), np.array(is_root))


# ---- places ----------------------------------------------------------------------------------


def test_subprog_name():
    """A slot's subprog has a name, or none."""
    given = Program(CALLS, Subprogs.from_starts({0: "main", 4: "f", 5: ""}))
    assert [given.subprog_name(slot) for slot in (0, 3, 4, 6)] == ["main", "main", "f", ""]
    assert Program(concat([])).subprog_name(0) == ""


def test_source_line():
    """A slot has the last line record at or before it."""
    given = with_lines([0, 3], [7, 9])
    line = given.source(1)
    assert (line.file, line.line, line.column, line.text) == ("/src/lb.c", 7, 5, "int x = 1;")
    assert str(line) == "lb.c:7"
    assert given.source(3).line == 9


def test_source_line_stays_in_its_subprog():
    """A record of the subprog before says nothing about this one."""
    assert with_lines([0], [7]).source(4) is None
    assert with_lines([3], [7]).source(0) is None


def test_source_lines_of_many_slots():
    """Looked up together, slots have the source lines that each has alone."""
    given = with_lines([1, 3], [7, 9])
    rows = given.source_rows(np.arange(len(given)))
    assert given.source_lines(rows[:0]) == []
    lines = given.source_lines(rows[rows >= 0])
    assert lines == [line for slot in range(len(given)) if (line := given.source(slot))]


def test_no_source_line():
    """Without line info, or without rows, there is none."""
    assert Program(CALLS).source(0) is None
    assert with_lines([], []).source(0) is None


def test_string_without_an_end():
    """A string offset that leads nowhere gives an empty name, not an error."""
    given = replace(with_lines([0], [7]), strings=b"\0abc")
    assert given.source(0).file == ""


def test_string_that_is_no_utf8():
    """Bytes that are no UTF-8 are replaced."""
    given = replace(with_lines([0], [7]), strings=b"\0a\xff\0")
    assert given.source(0).file == "a\ufffd"


def test_where():
    """A slot's place has its subprog, source line and instruction."""
    given = with_lines([0], [7], subprogs=Subprogs.from_starts({0: "main"}))
    where = given.where(3)
    assert (where.slot, where.subprog, where.source, where.text) == (3, "main", "lb.c:7", "exit")
    assert str(Program(CALLS).where(3)) == "insn 3 `exit`"


def test_where_outside():
    """A slot that is not in the program has a place without text."""
    assert str(Program(CALLS).where(70)) == "insn 70"


def test_source_line_of_a_name_without_end():
    """Names and texts of which thousands of records can share one are cut where no file's go on."""
    given = replace(with_lines([0], [7]), strings=b"\0" + b"x" * 100_000 + b"\0")
    line = given.source(0)
    assert len(line.file) == 4096
    assert len(line.text) == 1024
    assert len(str(line)) == 255 + len(":7")
