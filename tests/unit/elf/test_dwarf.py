"""DWARF of an object whose code has moved: addresses, what is gone, what is not understood."""

import io
import random

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.elf.dwarf.cursor import Cursor
from bpfpatch.elf.leb import leb_in, sleb_bytes, uleb_bytes
from bpfpatch.errors import FormatError
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_objects
from support.inputs.compiled import compile_bpf
from support.machine.dwarfreaders import for_llvm, line_table

NOP = Body(isa.ja(0))
OBJECTS = dict(fixture_objects())
MUTATED = (
    "xdp_balancer.clang-19.v3.el.g.o",
    "many_lines.clang-19.v3.el.g.dwarf4.o",
    "many_lines.clang-14.v3.eb.g.o",
    "xdp_parse.gcc.v3.el.g.dwarf.o",
    "callbacks.clang-19.v3.el.g.gz.o",
)


def fixture(name):
    """A committed object."""
    return ElfObject.parse(OBJECTS[name])


def entries(obj):
    """All entries of .debug_info, by pyelftools."""
    dwarf = ELFFile(io.BytesIO(for_llvm(obj))).get_dwarf_info()
    return [entry for unit in dwarf.iter_CUs() for entry in unit.iter_DIEs()]


def subprogram(obj, name):
    """The low address and the length that the entry of a function has."""
    for entry in entries(obj):
        named = entry.attributes.get("DW_AT_name")
        if entry.tag == "DW_TAG_subprogram" and named and named.value == name.encode():
            at = entry.attributes
            return entry.dwarfinfo.get_addr(entry.cu, at["DW_AT_low_pc"].raw_value), at[
                "DW_AT_high_pc"
            ].value
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("value", "data"),
    [(2, b"\x02"), (127, b"\x7f"), (128, b"\x80\x01"), (129, b"\x81\x01"), (12857, b"\xb9\x64")],
)
def test_unsigned_leb128(value, data):
    """Numbers are as in table 7.7 of DWARF 5."""
    assert uleb_bytes(value) == data
    assert Cursor(data, "little", "", 0).uleb() == value
    assert Cursor(leb_in(value, 4, signed=False), "little", "", 0).uleb() == value


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (2, b"\x02"),
        (-2, b"\x7e"),
        (127, b"\xff\x00"),
        (-127, b"\x81\x7f"),
        (128, b"\x80\x01"),
        (-128, b"\x80\x7f"),
        (129, b"\x81\x01"),
        (-129, b"\xff\x7e"),
    ],
)
def test_signed_leb128(value, data):
    """Numbers are as in table 7.8 of DWARF 5."""
    assert sleb_bytes(value) == data
    assert Cursor(data, "little", "", 0).sleb() == value
    assert Cursor(leb_in(value, 4, signed=True), "little", "", 0).sleb() == value


def test_leb128_that_has_no_room():
    """A number that does not fit so many bytes is no LEB128 of them."""
    assert leb_in(128, 1, signed=False) is None
    assert leb_in(64, 1, signed=True) is None


def test_cut_off_numbers_are_errors_with_the_byte():
    """Where reading fails, the error knows the byte of the file."""
    with pytest.raises(FormatError) as caught:
        Cursor(b"\x80\x80", "little", ".debug_info", 100).uleb()
    assert caught.value.byte_off == 102
    with pytest.raises(FormatError):
        Cursor(b"\x80" * 40, "little", ".debug_info", 0).uleb()


def test_a_function_grows_with_what_is_put_in():
    """A function's range takes in what is inserted at its first and after its last instruction."""
    obj = fixture("global_funcs.clang-16.v1.el.g.o")
    subprogs = obj.code.subprogs
    index = subprogs.names.index("scale")
    start, end = int(subprogs.start[index]), int(subprogs.ends(len(obj.code))[index])
    low, length = subprogram(obj, "scale")
    patches = PatchList(obj.code)
    patches.insert_before(start, NOP)
    patches.insert_before(end - 1, NOP)
    assert subprogram(obj.with_code(patches.linearize()), "scale") == (low, length + 16)


def test_a_function_that_is_gone_has_an_empty_range():
    """Its entry stays, and no line is of it any more."""
    obj = fixture("callbacks.clang-19.v3.el.g.o")
    table = obj.code.subprogs
    ends = table.ends(len(obj.code))
    caller = {int(obj.code.subprogs.of(np.array([t]))[0]) for t in obj.code.refs.target.tolist()}
    index = next(i for i, name in enumerate(table.names) if i not in caller and name)
    slots = np.arange(table.start[index], ends[index])
    patches = PatchList(obj.code)
    patches.delete(slots[~obj.code.second_slots[slots]])
    out = obj.with_code(patches.linearize())
    assert out.notices[0].startswith("updated DWARF")
    assert subprogram(out, table.names[index])[1] == 0
    assert len(line_table(out)) == len(line_table(obj)) - slots.size


def test_a_call_returns_to_what_follows_it():
    """DW_AT_call_return_pc is the byte after the call, also where code was put in there."""
    obj = fixture("xdp_parse.gcc.v3.el.g.dwarf.o")
    returns = [e for e in entries(obj) if "DW_AT_call_return_pc" in e.attributes]
    patches = PatchList(obj.code)
    patches.insert_after(np.flatnonzero(isa.is_subprog_call(obj.code.insns)), Body(isa.ja(0)))
    patches.insert_before(0, NOP)
    out = obj.with_code(patches.linearize())
    new = [e for e in entries(out) if "DW_AT_call_return_pc" in e.attributes]
    assert returns
    code = {sec.name: bytes(sec.data) for sec in out.sections}
    homes = [name for name in code if name in ("xdp", "tc", "socket", ".text")]
    for entry in new:
        at = entry.attributes["DW_AT_call_return_pc"].value
        assert any(code[name][at - 8 : at - 7] == b"\x85" for name in homes)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", ["split", "single"])
def test_split_dwarf_is_dropped_and_named(tmp_path, version, kind):
    """Whether its other half is in another file or in the same, it goes and is called by name."""
    text = 'SEC("xdp") int run(struct xdp_md *ctx) { return ctx->data_end - ctx->data > 9; }'
    flags = (f"-gdwarf-{version}", f"-gsplit-dwarf={kind}")
    obj = ElfObject.read(compile_bpf(tmp_path, text, flags=flags))
    patches = PatchList(obj.code)
    patches.insert_before(0, NOP)
    out = obj.with_code(patches.linearize())
    assert "split DWARF" in out.notices[0]
    assert not any(one.name.startswith(".debug") for one in out.sections)


def test_what_is_not_understood_is_dropped_with_the_reason():
    """A unit of a version to come is in the notice, and all debug sections go."""
    data = bytearray(OBJECTS["xdp_balancer.clang-19.v3.el.g.o"])
    info = next(sec for sec in ElfObject.parse(data).sections if sec.name == ".debug_info")
    data[info.byte_off + 4] = 6
    obj = ElfObject.parse(data)
    patches = PatchList(obj.code)
    patches.insert_before(0, NOP)
    out = obj.with_code(patches.linearize())
    assert ".debug_info has a unit of version 6" in out.notices[0]
    assert not [sec.name for sec in out.sections if ".debug" in sec.name]


@pytest.mark.parametrize("name", MUTATED)
def test_broken_dwarf_is_never_more_than_a_notice(name):
    """Whatever its bytes are, DWARF is updated or dropped; nothing else fails for it."""
    data, chance = OBJECTS[name], random.Random(name)
    secs = [sec for sec in ElfObject.parse(data).sections if sec.name.startswith(".debug_")]
    said = set()
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            sec = chance.choice(secs)
            at = sec.byte_off + chance.randrange(sec.size)
            broken[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        obj = ElfObject.parse(broken)
        patches = PatchList(obj.code)
        patches.insert_before(0, NOP)
        said.add(obj.with_code(patches.linearize()).notices[0][:7])
    assert said <= {"updated", "removed"}
