"""An object with rewritten code: everything that depends on code has moved along."""

import struct
from types import SimpleNamespace

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import (
    LostRowError,
    LostTargetError,
    OptionError,
    StaleDebugError,
    UnsupportedError,
)
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Remap
from support.inputs.bpfobjects import fixture_objects

MOV, CALL, LD, EXIT = 0xB7, 0x85, 0x18, (0x95,)
NOTYPE, OBJECT, FUNC, SECTION, GLOBAL = 0, 1, 2, 3, 1
R_64, R_ABS64, R_32 = 1, 2, 10
NOP = Body(isa.ja(0))


def fixture(name):
    """A committed object."""
    return ElfObject.parse(dict(fixture_objects())[name])


def edited(obj, *edits, **options):
    """The object after some edits of one patch list."""
    patches = PatchList(obj.code)
    for edit in edits:
        edit(patches)
    return obj.with_code(patches.linearize(), **options)


def nop_at(*slots):
    """An edit that puts a nop before each of these slots."""
    return lambda patches: patches.insert_before(np.array(slots, np.int32), NOP)


def sections(obj):
    """Contents by section name."""
    return {sec.name: bytes(sec.data) for sec in obj.sections}


def symbols(obj):
    """(section name, value, size) by symbol name, of symbols with a name."""
    names = [sec.name for sec in obj.sections]
    return {
        sym.name: (names[sym.section], sym.value, sym.size)
        for sym in obj.symbols
        if sym.name and sym.type != SECTION
    }


def rels(obj, section):
    """(byte offset, type, symbol name) of a relocation section."""
    data = sections(obj)[section]
    order = "<" if obj.byteorder == "little" else ">"
    names = [sym.name for sym in obj.symbols]
    return [
        (byte_off, info & 0xFFFFFFFF, names[info >> 32])
        for byte_off, info in struct.iter_unpack(f"{order}QQ", data)
    ]


def imm(obj, section, slot):
    """The immediate of an instruction in the file."""
    order = "<" if obj.byteorder == "little" else ">"
    return struct.unpack_from(f"{order}i", sections(obj)[section], 8 * slot + 4)[0]


def add(build, *args, **more):
    """Add a symbol."""
    build.symbols.append(build.symbol(*args, **more))


@pytest.fixture
def calls(build):
    """.text: first (0-1), second (2-3), third (4-5); xdp: calls of all kinds, and addresses."""
    build.code(".text", (MOV,), EXIT, (MOV,), EXIT, (CALL, 0, 1, 0, -3), EXIT)
    build.code(
        "xdp",
        (CALL, 0, 1, 0, -1),
        (CALL, 0, 1, 0, 1),
        (LD, 1, 0, 0, 32),
        (0,),
        (CALL, 0, 1, 0, -1),
        (LD, 1, 0, 0, 8),
        (0,),
        EXIT,
    )
    build.sections.append(build.section(".data", bytes(16), flags=3, align=8))
    add(build, "text", ".text", type=SECTION)
    add(build, "data", ".data", type=SECTION)
    add(build, "second", ".text", 16, 16, FUNC)
    add(build, "third", ".text", 32, 16, FUNC)
    add(build, "Lblock", ".text", 24)
    add(build, "Lend", ".text", 48)
    add(build, "first", ".text", 0, 16, FUNC, GLOBAL)
    add(build, "main", "xdp", 0, 64, FUNC, GLOBAL)
    add(build, "kfunc", bind=GLOBAL)
    build.rels["xdp"] = [
        (0, R_32, "first"),
        (8, R_32, "text"),
        (16, R_64, "text"),
        (32, R_32, "kfunc"),
        (40, R_64, "data"),
    ]
    return ElfObject.parse(build.to_bytes())


def test_code_that_nobody_edited_gives_the_same_bytes(calls):
    """Putting back unedited code changes nothing, and that is no shortcut for identity."""
    assert edited(calls).to_bytes() == calls.to_bytes()
    again = SimpleNamespace(program=calls.code, remap=Remap.identity(len(calls.code)))
    assert calls.with_code(again).to_bytes() == calls.to_bytes()


def test_a_symbol_moves_and_grows_with_its_code(calls):
    """A function's symbol starts where a call arrives, and covers what was put into it."""
    out = symbols(edited(calls, nop_at(0, 2, 3)))
    assert out["first"] == (".text", 0, 24)
    assert out["second"] == (".text", 24, 32)
    assert out["third"] == (".text", 56, 16)
    assert out["main"] == ("xdp", 0, 64)


def test_a_label_moves_to_where_a_jump_arrives(calls):
    """A basic block's label moves; one at the end of a section stays at its end."""
    out = symbols(edited(calls, nop_at(3)))
    assert out["Lblock"] == (".text", 24, 0)
    assert out["Lend"] == (".text", 56, 0)
    prepended = edited(calls, lambda patches: patches.prepend(3, NOP))
    assert symbols(prepended)["Lblock"] == (".text", 32, 0)


def test_relocations_follow_their_instructions(calls):
    """A relocation sits on the byte where its instruction went."""
    out = edited(calls, nop_at(6, 8))
    assert [row[0] for row in rels(out, ".relxdp")] == [8, 16, 32, 48, 56]
    assert [row[1:] for row in rels(out, ".relxdp")] == [row[1:] for row in rels(calls, ".relxdp")]


def test_addends_in_place_are_right(calls):
    """A call by section symbol counts slots from the section's start, an address bytes."""
    out = edited(calls, nop_at(0, 1))
    assert imm(out, "xdp", 0) == -1
    assert imm(out, "xdp", 1) == 3
    assert imm(out, "xdp", 2) == 48
    assert imm(out, "xdp", 4) == -1
    assert imm(out, "xdp", 5) == 8


def test_a_call_without_relocation_spans_what_was_put_between(calls):
    """A call within a section counts the slots to its target."""
    assert imm(edited(calls, nop_at(3)), ".text", 5) == -4


def test_a_function_address_keeps_the_file_s_form(calls):
    """In the file a function address has no PSEUDO_FUNC: the loader puts that in."""
    out = edited(calls, nop_at(0))
    regs = sections(out)["xdp"][17]
    assert regs == (1 if out.byteorder == "little" else 0x10)


def test_other_sections_stay(calls):
    """A section that does not depend on code keeps its content."""
    out = edited(calls, nop_at(0, 7))
    assert sections(out)[".data"] == bytes(16)
    assert [sec.name for sec in out.sections] == [sec.name for sec in calls.sections]


def test_the_result_is_an_object_like_any_other(calls):
    """What was written can be read, patched and written again; nothing depends on the way."""
    once = edited(calls, nop_at(0, 3, 7))
    again = ElfObject.parse(once.to_bytes())
    assert again == once
    assert (again.code.insns == once.code.insns).all()
    nops = np.flatnonzero(isa.is_nop(again.code.insns))
    back = edited(again, lambda patches: patches.delete(nops))
    assert back.to_bytes() == calls.to_bytes()


def test_edits_of_two_objects_do_not_mix(calls):
    """Code that was made from another object is refused."""
    other = fixture("xdp_parse.clang-19.v3.el.g.o")
    with pytest.raises(OptionError, match="does not fit"):
        calls.with_code(PatchList(other.code).linearize())


def test_a_program_without_its_tables_is_refused(calls):
    """Tables hold what the file needs: a program that has lost one cannot be written."""
    bare = type(calls.code)(
        insns=calls.code.insns,
        subprogs=calls.code.subprogs,
        sections=calls.code.sections,
        external=calls.code.external,
    )
    with pytest.raises(OptionError, match="no table"):
        calls.with_code(SimpleNamespace(program=bare, remap=Remap.identity(len(bare))))


# ---- deletion --------------------------------------------------------------------------------


def drop_second(patches):
    """Delete second, and the calls of it."""
    patches.delete(np.array([4, 7]))
    patches.delete_subprog("second")


def test_a_deleted_subprog_takes_its_symbols_along(calls):
    """The symbols of a deleted function go, and all numbers of symbols stay right."""
    out = edited(calls, drop_second)
    assert set(symbols(calls)) - set(symbols(out)) == {"second", "Lblock"}
    assert [row[2] for row in rels(out, ".relxdp")] == ["first", "text", "kfunc", "data"]
    assert symbols(out)["third"] == (".text", 16, 8)
    assert imm(out, "xdp", 1) == 16
    symtab = next(sec for sec in out.sections if sec.name == ".symtab")
    binds = [sym.bind for sym in out.symbols]
    assert symtab.info == binds.index(GLOBAL)
    assert "second" not in out.code.subprogs.names


def test_a_call_of_a_deleted_subprog_is_an_error(calls):
    """A function cannot go while a call of it stays."""
    patches = PatchList(calls.code)
    patches.delete_subprog("second")
    patches.delete(7)
    with pytest.raises(LostTargetError, match="third"):
        patches.linearize()


def test_data_that_needs_a_deleted_function_is_an_error(build):
    """A function whose symbol a relocation of data needs cannot go."""
    build.code(".text", (MOV,), EXIT)
    build.code("xdp", (MOV,), EXIT)
    build.sections.append(build.section(".maps", bytes(8), flags=3, align=8))
    add(build, "tail", ".text", 0, 16, FUNC, GLOBAL)
    add(build, "main", "xdp", 0, 16, FUNC, GLOBAL)
    build.rels[".maps"] = [(0, R_ABS64, "tail")]
    obj = ElfObject.parse(build.to_bytes())
    with pytest.raises(UnsupportedError, match=r"tail.*\.rel\.maps"):
        edited(obj, lambda patches: patches.delete_subprog("tail"))


def test_a_deleted_relocated_instruction_takes_its_relocation_along(calls):
    """A relocation whose instruction was deleted goes."""
    out = edited(calls, lambda patches: patches.delete(10))
    assert "kfunc" not in [row[2] for row in rels(out, ".relxdp")]


def test_a_replaced_relocated_instruction_is_an_error(calls):
    """A body that does not keep a relocated instruction is refused, by name."""
    with pytest.raises(LostRowError, match="reloc"):
        edited(calls, lambda patches: patches.replace(10, Body(isa.mov(0, 1))))


def test_a_group_and_an_address_table_are_renumbered(build):
    """Symbols that go leave .llvm_addrsig, and its other numbers change with the table's."""
    build.code(".text", (MOV,), EXIT, (MOV,), EXIT)
    add(build, "one", ".text", 0, 16, FUNC)
    add(build, "two", ".text", 16, 16, FUNC)
    add(build, "data", bind=GLOBAL)
    build.sections.append(build.section(".llvm_addrsig", b"\1\2\3", type=0x6FFF4C03))
    obj = ElfObject.parse(build.to_bytes())
    out = edited(obj, lambda patches: patches.delete_subprog("one"))
    assert sections(out)[".llvm_addrsig"] == b"\1\2"


# ---- data that holds addresses -----------------------------------------------------------------


def test_pointers_to_code_in_data_move(build):
    """A pointer by section symbol moves with its function."""
    mark = "little" if build.order == "<" else "big"
    build.code(".text", (MOV,), EXIT, (MOV,), EXIT)
    build.sections.append(
        build.section(".data", bytes(8) + (16).to_bytes(8, mark), flags=3, align=8)
    )
    add(build, "text", ".text", type=SECTION)
    add(build, "second", ".text", 16, 16, FUNC)
    build.rels[".data"] = [(8, R_ABS64, "text")]
    out = edited(ElfObject.parse(build.to_bytes()), nop_at(0, 1))
    assert sections(out)[".data"] == bytes(8) + (32).to_bytes(8, mark)


@pytest.mark.parametrize("order", ["el", "eb"])
def test_jump_tables_move(order):
    """Each entry of .jumptables says where a jump to its instruction arrives."""
    obj = fixture(f"asm_jump_table.clang-19.v4.{order}.o")
    mark = "<" if order == "el" else ">"
    before = struct.unpack(f"{mark}6Q", sections(obj)[".jumptables"])
    after = struct.unpack(f"{mark}6Q", sections(edited(obj, nop_at(0, 10)))[".jumptables"])
    assert after == tuple(entry + (8 if entry < 80 else 16) for entry in before)
    prepended = edited(obj, lambda patches: patches.prepend(9, NOP))
    assert struct.unpack(f"{mark}6Q", sections(prepended)[".jumptables"])[0] == before[0] + 8


def test_a_jump_table_entry_that_lost_its_code_is_an_error():
    """An entry whose instruction is deleted with nothing behind it is refused."""
    obj = fixture("asm_jump_table.clang-19.v4.el.o")
    with pytest.raises(LostRowError, match="jump_table"):
        edited(obj, lambda patches: patches.delete_subprog("second_table"))


def test_a_jump_table_of_two_sections_stops_moves(build):
    """Entries that two code sections share cannot be moved, and are not moved silently."""
    for name in ("xdp", "tc"):
        build.code(name, (LD, 1), (0,), EXIT)
        add(build, name, name, 0, 24, FUNC, GLOBAL)
    build.sections.append(build.section(".jumptables", bytes(8), align=8))
    add(build, "table", ".jumptables", 0, 8, OBJECT)
    build.rels = {name: [(0, R_64, "table")] for name in ("xdp", "tc")}
    obj = ElfObject.parse(build.to_bytes())
    assert edited(obj).to_bytes() == obj.to_bytes()
    with pytest.raises(UnsupportedError, match="jumptables"):
        edited(obj, nop_at(0))


# ---- records -----------------------------------------------------------------------------------


def test_records_follow_their_instructions():
    """The three tables of .BTF.ext count bytes to where their instructions went."""
    obj = fixture("core_relo.clang-19.v3.el.g.o")
    every = np.flatnonzero(~obj.code.second_slots)
    patches = PatchList(obj.code)
    patches.insert_before(every, NOP)
    linearized = patches.linearize()
    out = obj.with_code(linearized)
    bounds = dict(zip(obj.code.sections, obj.code.section_bounds.tolist(), strict=False))
    new = dict(zip(obj.code.sections, linearized.program.section_bounds.tolist(), strict=False))
    for kind, place in (("func_info", "entry"), ("line_info", "entry"), ("core_relo", "own")):
        pairs = list(zip(getattr(obj.btf_ext, kind), getattr(out.btf_ext, kind), strict=True))
        assert pairs
        for old, moved in pairs:
            slots = bounds[old.name] + old.records["insn_off"] // 8
            want = getattr(linearized.remap, place)[slots] - new[old.name]
            assert (moved.records["insn_off"] == want * 8).all()
            names = [name for name in old.records.dtype.names if name != "insn_off"]
            assert (moved.records[names] == old.records[names]).all()


@pytest.mark.parametrize("name", ["xdp_balancer.clang-19.v3.el.g.o", "tracing.clang-19.v3.eb.g.o"])
def test_records_relocations_are_rebuilt(name):
    """Where records go with their code, the relocations of .BTF.ext go too, each on a record."""
    obj = fixture(name)
    lines = obj.code.tables["line_info"]
    slot = int(lines.insn[1])
    out = edited(obj, lambda patches: patches.delete(np.arange(slot, int(lines.insn[2]))))
    n_lines = sum(len(block.records) for block in obj.btf_ext.line_info)
    assert sum(len(block.records) for block in out.btf_ext.line_info) == n_lines - 1
    old, new = rels(obj, ".rel.BTF.ext"), rels(out, ".rel.BTF.ext")
    assert len(new) == len(old) - 1
    order = "little" if obj.byteorder == "little" else "big"
    ext = sections(out)[".BTF.ext"]
    names = {block.name for block in out.btf_ext.line_info}
    for byte_off, _, symbol in new:
        assert int.from_bytes(ext[byte_off : byte_off + 4], order) % 8 == 0
        assert symbol in names


def test_a_record_that_an_edit_would_break_is_an_error():
    """An instruction that a CO-RE record patches cannot be replaced."""
    obj = fixture("core_relo.clang-19.v3.el.g.o")
    slot = int(obj.code.tables["core_relo"].insn[0])
    with pytest.raises(LostRowError, match="core_relo"):
        edited(obj, lambda patches: patches.replace(slot, Body(isa.mov(0, 1))))


# ---- debug information -------------------------------------------------------------------------


def test_dwarf_is_dropped_with_a_notice():
    """With dwarf="drop" it goes when code moves, with its relocations and symbols, and a notice."""
    obj = fixture("xdp_balancer.clang-19.v3.el.g.o")
    out = edited(obj, nop_at(5), dwarf="drop")
    gone = {sec.name for sec in obj.sections} - {sec.name for sec in out.sections}
    assert gone
    assert all(name.startswith((".debug_", ".rel.debug_")) for name in gone)
    assert not [sec.name for sec in out.sections if "debug_" in sec.name]
    assert not [sym.name for sym in out.symbols if "debug_" in sym.name]
    assert out.notices == (f"removed {len(gone)} DWARF sections, stale since the code moved",)


def test_numbers_are_right_after_dwarf_is_gone():
    """Links between sections name the same sections as before."""
    obj = fixture("xdp_balancer.clang-19.v3.el.g.o")
    out = edited(obj, nop_at(5), dwarf="drop")
    old, new = list(obj.sections), list(out.sections)
    before = {sec.name: (old[sec.link].name, sec) for sec in old}
    for sec in new:
        assert new[sec.link].name == before[sec.name][0]
        if sec.type == 9:
            assert new[sec.info].name == old[before[sec.name][1].info].name
    homes = {sym.name: old[sym.section].name for sym in obj.symbols if sym.section < len(old)}
    for sym in out.symbols:
        if sym.section < len(new):
            assert new[sym.section].name == homes[sym.name]


def test_dwarf_can_stop_the_write():
    """With dwarf="refuse" stale DWARF is an error."""
    obj = fixture("xdp_balancer.clang-19.v3.el.g.o")
    with pytest.raises(StaleDebugError, match="stale"):
        edited(obj, nop_at(5), dwarf="refuse")


def test_dwarf_stays_where_no_code_moved():
    """An edit in place leaves DWARF alone."""
    obj = fixture("xdp_balancer.clang-19.v3.el.g.o")
    free = np.setdiff1d(
        np.flatnonzero(obj.code.insns["code"] == MOV),
        [*obj.code.tables["reloc"].insn, *obj.code.tables["core_relo"].insn],
    )
    out = edited(obj, lambda patches: patches.modify(int(free[0]), imm=7), dwarf="refuse")
    assert len(out.to_bytes()) == len(obj.to_bytes())
    assert sum(a != b for a, b in zip(out.to_bytes(), obj.to_bytes(), strict=True)) <= 4
    assert out.notices == ()


def test_only_content_counts_as_dwarf(build):
    """A string table or code is kept whatever it is called."""
    build.code("xdp", EXIT)
    build.code(".debug_code", EXIT)
    build.sections.append(build.section(".debug_names", b"\0", type=3))
    build.sections.append(build.section(".debug_info", b"stale"))
    out = edited(ElfObject.parse(build.to_bytes()), nop_at(0))
    names = [sec.name for sec in out.sections]
    assert ".debug_info" not in names
    assert {".debug_code", ".debug_names"} <= set(names)
    assert out.notices == (
        "removed 1 DWARF section, stale since the code moved: there are no abbreviations for "
        ".debug_info",
    )


def test_a_stripped_object_is_not_edited_wrongly():
    """Where calls of a stripped object go cannot be known, so its code is not moved."""
    obj = fixture("xdp_parse.clang-19.v3.el.g.strip-all.o")
    assert edited(obj).to_bytes() == obj.to_bytes()
    with pytest.raises(UnsupportedError, match="strip"):
        edited(obj, nop_at(0))


# ---- new references ----------------------------------------------------------------------------


def test_an_inserted_call_within_a_section_needs_no_relocation(calls):
    """A new call of a function of its own section is relative."""
    body = Body(isa.call_subprog(0), labels={0: 2})
    out = edited(calls, lambda patches: patches.insert_before(0, body))
    assert imm(out, ".text", 0) == 2
    assert len(rels(out, ".relxdp")) == len(rels(calls, ".relxdp"))


def test_an_inserted_call_into_another_section_gets_a_relocation(calls):
    """A new call across sections is relocated: by a global's symbol, or the section's."""
    to_global = Body(isa.call_subprog(0), labels={0: 0})
    to_static = Body(isa.call_subprog(0), labels={0: 2})
    out = edited(
        calls,
        lambda patches: patches.insert_before(10, to_global),
        lambda patches: patches.insert_before(13, to_static),
    )
    assert (32, R_32, "first") in rels(out, ".relxdp")
    assert (64, R_32, "text") in rels(out, ".relxdp")
    assert imm(out, "xdp", 4) == -1
    assert imm(out, "xdp", 8) == 1
    assert out.code.refs.target.tolist().count(2) == 3


def test_an_inserted_function_address_gets_a_relocation(calls):
    """A new function address is relocated, in bytes, and has no PSEUDO_FUNC in the file."""
    body = Body(isa.ld_imm64(2, 0, 4), labels={0: 4})
    out = edited(calls, lambda patches: patches.insert_before(13, body))
    assert (56, R_64, "text") in rels(out, ".relxdp")
    assert imm(out, "xdp", 7) == 32


def test_a_section_without_relocations_cannot_call_another(build):
    """Where there is no section of relocations, a call that needs one is an error."""
    build.code(".text", (MOV,), EXIT)
    build.code("xdp", (MOV,), EXIT)
    add(build, "f", ".text", 0, 16, FUNC, GLOBAL)
    obj = ElfObject.parse(build.to_bytes())
    body = Body(isa.call_subprog(0), labels={0: 0})
    with pytest.raises(UnsupportedError, match="no section of relocations"):
        edited(obj, lambda patches: patches.insert_before(2, body))


def test_an_inserted_load_of_a_map_can_be_relocated(calls):
    """A row from `relocation`, attached to an inserted ld_imm64, is written for it."""

    def edit(patches):
        node = patches.insert_before(13, Body(isa.ld_imm64(1, 0)))
        patches.attach("reloc", int(node), calls.relocation("xdp", "data"))

    out = edited(calls, edit)
    assert rels(out, ".relxdp")[-1] == (56, R_64, "data")
    assert 13 in out.code.external


@pytest.mark.parametrize(("section", "symbol"), [("tc", "data"), (".text", "data"), ("xdp", "no")])
def test_a_relocation_needs_its_section_and_symbol(calls, section, symbol):
    """What the object does not have cannot be referred to."""
    with pytest.raises(OptionError):
        calls.relocation(section, symbol)


def test_jump_tables_with_relocations_move(build):
    """Entries that a relocation against the code's section places move as those without do.

    Source: llvm 22 before "Avoid relocation for jumptable entries".
    """
    mark = "little" if build.order == "<" else "big"
    build.code("tc", EXIT)
    build.code("xdp", (LD, 1), (0,), (MOV,), EXIT)
    entries = (16).to_bytes(8, mark) + (24).to_bytes(8, mark)
    build.sections.append(build.section(".jumptables", entries, align=8))
    add(build, "code", "xdp", type=SECTION)
    add(build, "table", ".jumptables", 0, 16, OBJECT)
    add(build, "main", "xdp", 0, 32, FUNC, GLOBAL)
    build.rels["xdp"] = [(0, R_64, "table")]
    build.rels[".jumptables"] = [(0, R_ABS64, "code"), (8, R_ABS64, "code")]
    obj = ElfObject.parse(build.to_bytes())
    assert obj.code.tables["jump_table"].insn.tolist() == [3, 4]
    out = edited(obj, nop_at(0, 1), lambda patches: patches.prepend(4, NOP))
    want = (24).to_bytes(8, mark) + (40).to_bytes(8, mark)
    assert sections(out)[".jumptables"] == want


def test_groups_are_renumbered(build):
    """A section group names the same sections and the same symbol after others have gone."""
    order = "<I" if build.order == "<" else ">I"
    build.sections.append(build.section(".debug_info", b"debug"))
    build.code("gone", (MOV,), EXIT)
    build.code("xdp", (MOV,), EXIT)
    group = struct.pack(order, 1) + struct.pack(order, 3)
    build.sections.append(build.section(".group", group, type=17, align=4, info=4, entsize=4))
    add(build, "info", ".debug_info", type=SECTION)
    add(build, "first", "gone", 0, 16, FUNC)
    add(build, "second", "xdp", 0, 16, FUNC)
    add(build, "signature", "xdp", 0, 0)
    obj = ElfObject.parse(build.to_bytes())
    out = edited(obj, lambda patches: patches.delete_subprog("first"))
    found = next(sec for sec in out.sections if sec.name == ".group")
    assert bytes(found.data) == struct.pack(order, 1) + struct.pack(order, 2)
    assert out.sections[2].name == "xdp"
    assert out.symbols[found.info].name == "signature"


def test_records_without_strings_stop_moves():
    """.BTF.ext cannot be moved without .BTF; without an edit nothing is wrong with it."""
    data = bytearray(dict(fixture_objects())["kconfig.clang-19.v3.el.g.o"])
    index = [sec.name for sec in ElfObject.parse(data).sections].index(".BTF")
    (shoff,) = struct.unpack_from("<Q", data, 40)
    (name_off,) = struct.unpack_from("<I", data, shoff + 64 * index)
    struct.pack_into("<I", data, shoff + 64 * index, name_off + 1)
    obj = ElfObject.parse(data)
    assert edited(obj).to_bytes() == data
    with pytest.raises(UnsupportedError, match=r"no \.BTF"):
        edited(obj, nop_at(0))


def test_relocations_of_records_without_a_pattern_stop_their_removal():
    """Where relocations of .BTF.ext are not one on each record, records cannot go silently."""
    obj = fixture("xdp_count.clang-19.v3.el.g.o")
    section = next(sec for sec in obj.sections if sec.name == ".rel.BTF.ext")
    broken = bytearray(obj.to_bytes())
    broken[section.byte_off : section.byte_off + 8] = struct.pack("<Q", 4)
    obj = ElfObject.parse(bytes(broken))
    assert edited(obj, nop_at(0)).code.source(1) is not None
    lines = obj.code.tables["line_info"].insn
    with pytest.raises(UnsupportedError, match=r"\.rel\.BTF\.ext"):
        edited(obj, lambda patches: patches.delete(np.arange(lines[1], lines[2])))


def test_a_whole_program_can_be_deleted():
    """A section whose only function is deleted stays, empty; the others are not touched."""
    obj = fixture("cgroup.clang-19.v3.el.g.o")
    name = obj.programs[-1].name
    out = edited(obj, lambda patches: patches.delete_subprog(name))
    again = ElfObject.parse(out.to_bytes())
    assert [info.name for info in again.programs] == [info.name for info in obj.programs[:-1]]
    assert sections(again)[obj.programs[-1].section] == b""
    for info in again.programs:
        assert len(again.link(info.name).program) == len(obj.link(info.name).program)
