"""The flat program that a loader submits: what is in it, where, and in which units."""

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject, LinkTarget, TargetKind
from bpfpatch.errors import LinkError
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import INSERTED, validate
from support.inputs.bpfobjects import fixture_objects

MOV, CALL, LD, EXIT = 0xB7, 0x85, 0x18, (0x95,)
FUNC, SECTION, OBJECT, GLOBAL = 2, 3, 1, 1
R_64, R_32 = 1, 10


def fixture(name):
    """A committed object."""
    return ElfObject.parse(dict(fixture_objects())[name])


@pytest.fixture
def obj(build):
    """xdp: main calls c, then b; .text: a, b (calls a), c (calls a), unused."""
    build.code(
        ".text",
        *[(MOV,), EXIT],
        *[(CALL, 0, 1, 0, -3), EXIT],
        *[(CALL, 0, 1, 0, -5), EXIT],
        *[(MOV,), EXIT],
    )
    build.code("xdp", (CALL, 0, 1, 0, 3), (CALL, 0, 1, 0, 1), (LD, 1), (0,), EXIT)
    build.sections.append(build.section("maps", bytes(20), flags=3, align=4))
    build.symbols += [
        build.symbol("text", ".text", type=SECTION),
        *[
            build.symbol(name, ".text", 16 * row, 16, FUNC)
            for row, name in enumerate(("a", "b", "c", "unused"))
        ],
        build.symbol("main", "xdp", 0, 40, FUNC, GLOBAL),
        build.symbol("table", "maps", 0, 20, OBJECT, GLOBAL),
    ]
    build.rels["xdp"] = [(0, R_32, "text"), (8, R_32, "text"), (16, R_64, "table")]
    return ElfObject.parse(build.to_bytes())


def test_subprogs_are_appended_when_first_met(obj):
    """A callee goes to the end when its first call is met, and its callees right behind it."""
    linked = obj.link("main")
    assert linked.program.subprogs.names == ("main", "c", "a", "b")
    assert linked.program.subprogs.start.tolist() == [0, 5, 7, 9]
    assert linked.origin.tolist() == [8, 9, 10, 11, 12, 4, 5, 0, 1, 2, 3]


def test_references_are_flat(obj):
    """Calls go to where their functions are in the flat program, which is sound."""
    linked = obj.link("main")
    assert linked.program.refs.target.tolist() == [5, 9, 7, 7]
    validate(linked.program)


def test_what_is_left_to_the_loader_is_listed(obj):
    """Relocations against maps come with their slot and name."""
    (row,) = obj.link("main").relocations
    assert (row.slot, row.target) == (2, LinkTarget(TargetKind.MAP, "table", "maps"))


def test_an_unknown_name_is_refused_with_the_names_there_are(obj):
    """An error says which programs there are."""
    with pytest.raises(LinkError, match="there are: main"):
        obj.link("absent")


def test_records_have_the_units_of_the_system_call():
    """func_info and line_info count slots, core_relo bytes; they fit the kernel's rules."""
    obj = fixture("core_relo.clang-19.v3.el.g.o")
    assert obj.programs
    for info in obj.programs:
        linked = obj.link(info.name)
        starts = linked.program.subprogs.start.tolist()
        assert linked.func_info["insn_off"].tolist() == starts
        lines = linked.line_info["insn_off"]
        assert (np.diff(lines.astype(np.int64)) > 0).all()
        assert set(starts) <= set(lines.tolist())
        relos = linked.core_relo["insn_off"]
        assert (relos % 8 == 0).all()
        assert (relos < 8 * len(linked.program)).all()
        assert relos.size


def test_records_are_those_of_the_same_instructions():
    """A linked slot has the source line of the object's slot that it comes from."""
    obj = fixture("xdp_balancer.clang-19.v3.el.g.o")
    linked = obj.link(obj.programs[0].name)
    assert len(linked.program) > 70
    for slot in range(0, len(linked.program), 7):
        there = obj.code.source(int(linked.origin[slot]))
        assert linked.program.source(slot) == there


def test_a_linked_program_can_be_patched(obj):
    """Edits of the flat program keep its relocations and say where its slots come from."""
    linked = obj.link("main")
    patches = PatchList(linked.program)
    patches.insert_before(2, Body(isa.ja(0)))
    new = linked.with_code(patches.linearize())
    assert new.origin.tolist()[:4] == [8, 9, INSERTED, 10]
    assert [row.slot for row in new.relocations] == [3]


def test_callbacks_are_linked_in():
    """A function that is only reached by its address is part of the program."""
    obj = fixture("callbacks.clang-19.v3.el.g.o")
    names = {name for info in obj.programs for name in obj.link(info.name).program.subprogs.names}
    assert names == set(obj.code.subprogs.names)


def test_an_exception_callback_is_linked_in():
    """A function that a declaration tag names as exception callback is part of the program."""
    obj = fixture("exceptions.clang-19.v3.el.g.o")
    linked = [obj.link(info.name).program.subprogs.names for info in obj.programs]
    assert any("on_throw" in names for names in linked)


def test_jump_tables_are_flat():
    """Jump table rows of a linked program are on its own slots, and only on those."""
    obj = fixture("asm_jump_table.clang-19.v4.el.o")
    linked = obj.link("second_table")
    table = linked.program.tables["jump_table"]
    assert len(table) == 2
    assert {int(linked.origin[slot]) for slot in table.insn.tolist()} == {23, 25}
