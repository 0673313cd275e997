"""Independent readers agree with what we write: pyelftools, llvm-readelf and llvm-objdump."""

import functools
import io
import re
import struct
import subprocess

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import debian_objects, fixture_objects
from support.machine.tools import need

LD_IMM64 = 0x18
DEBUG = (".debug_", ".rel.debug_", ".eh_frame", ".rel.eh_frame")
#: No symbols, so that its code is not moved at all.
LEFT_OUT = ("xdp_parse.clang-19.v3.el.g.strip-all.o",)
#: Written from code, besides code itself.
DEPENDENT = (".symtab", ".BTF.ext", ".jumptables", ".llvm_addrsig")


OBJECTS = {
    name: data for name, data in [*fixture_objects(), *debian_objects()] if name not in LEFT_OUT
}


@functools.cache
def with_nops(name):
    """An object with ja +0 before each instruction, as bytes."""
    obj = ElfObject.parse(OBJECTS[name])
    patches = PatchList(obj.code)
    patches.insert_before(np.flatnonzero(~obj.code.second_slots), Body(isa.ja(0)))
    return obj.with_code(patches.linearize(), dwarf="drop").to_bytes()


class Moved:
    """Where bytes of a code section are after a nop went in before each instruction.

    Worked out from the section's bytes alone: an instruction with k starts in
    front of it moves k + 1 slots, its nop k.
    """

    def __init__(self, code):
        self.start = {}
        slot = count = 0
        while slot * 8 < len(code):
            self.start[slot * 8] = 8 * (slot + count)
            slot += 2 if code[slot * 8] == LD_IMM64 else 1
            count += 1
        self.start[len(code)] = 8 * (slot + count)

    def nop(self, byte_off):
        """Where the nop before an instruction is: calls and jumps arrive there."""
        return self.start[byte_off]

    def insn(self, byte_off):
        """Where the instruction is."""
        return self.start[byte_off] + 8


def elf_of(data):
    """The object as pyelftools sees it."""
    return ELFFile(io.BytesIO(data))


def is_code(section):
    """Whether a section holds instructions."""
    return section["sh_type"] == "SHT_PROGBITS" and section["sh_flags"] & 4


def kept(elf):
    """Sections but DWARF."""
    return [sec for sec in elf.iter_sections() if not sec.name.startswith(DEBUG)]


@pytest.mark.parametrize("name", OBJECTS)
def test_pyelftools_sees_the_same_sections(name):
    """The same sections in the same order; those that do not depend on code unchanged."""
    old, new = elf_of(OBJECTS[name]), elf_of(with_nops(name))
    relocated = _relocated(old)
    has_code = any(is_code(sec) and sec.data_size for sec in old.iter_sections())
    before = kept(old) if has_code else list(old.iter_sections())
    after = list(new.iter_sections())
    assert [sec.name for sec in after] == [sec.name for sec in before]
    for sec, was in zip(after, before, strict=True):
        keys = ("sh_type", "sh_flags", "sh_addralign", "sh_entsize")
        assert [sec[key] for key in keys] == [was[key] for key in keys]
        assert sec["sh_offset"] % max(sec["sh_addralign"], 1) == 0 or not sec.data_size
        if is_code(sec) or sec["sh_type"] == "SHT_REL" or sec.name in DEPENDENT:
            continue
        if was.name in relocated:
            continue
        assert sec.data() == was.data(), sec.name


def _relocated(elf):
    """Names of the sections that relocations apply to."""
    sections = list(elf.iter_sections())
    return {sections[sec["sh_info"]].name for sec in sections if sec["sh_type"] == "SHT_REL"}


@pytest.mark.parametrize("name", OBJECTS)
def test_pyelftools_sees_moved_symbols_and_relocations(name):
    """Symbols start at the nop of their instruction, relocations sit on the instruction."""
    old, new = elf_of(OBJECTS[name]), elf_of(with_nops(name))
    moves = {sec.name: Moved(sec.data()) for sec in old.iter_sections() if is_code(sec)}
    assert {sec.name: sec.data_size for sec in new.iter_sections() if is_code(sec)} == {
        sec.name: moves[sec.name].start[sec.data_size]
        for sec in old.iter_sections()
        if is_code(sec)
    }
    assert _symbols(new, {}) == _symbols(old, moves)
    assert _relocations(new, {}) == _relocations(old, moves)


def _symbols(elf, moves):
    table = elf.get_section_by_name(".symtab")
    names = [sec.name for sec in elf.iter_sections()]
    out = []
    for sym in table.iter_symbols() if table else ():
        home = names[sym["st_shndx"]] if isinstance(sym["st_shndx"], int) else sym["st_shndx"]
        if home.startswith(DEBUG):
            continue
        value, size = sym["st_value"], sym["st_size"]
        if home in moves and sym["st_info"]["type"] != "STT_SECTION":
            start = moves[home].nop(value)
            size = moves[home].nop(value + size) - start if size else 0
            value = start
        out.append((sym.name, home, value, size, sym["st_info"]["type"], sym["st_info"]["bind"]))
    return out


def _relocations(elf, moves):
    table = elf.get_section_by_name(".symtab")
    names = [sec.name for sec in elf.iter_sections()]
    out = []
    for sec in elf.iter_sections():
        if sec["sh_type"] != "SHT_REL" or sec.name.startswith(DEBUG):
            continue
        target = names[sec["sh_info"]]
        for rel in sec.iter_relocations():
            byte_off = rel["r_offset"]
            if target in moves:
                byte_off = moves[target].insn(byte_off)
            symbol = table.get_symbol(rel["r_info_sym"])
            home = symbol["st_shndx"]
            where = names[home] if isinstance(home, int) else home
            out.append((sec.name, byte_off, rel["r_info_type"], symbol.name, where))
    return out


@pytest.mark.parametrize("name", OBJECTS)
def test_calls_and_addresses_reach_the_same_functions(name):
    """Each call and function address, worked out from the file alone, reaches the nop it should."""
    data = OBJECTS[name]
    old, new = elf_of(data), elf_of(with_nops(name))
    moves = {sec.name: Moved(sec.data()) for sec in old.iter_sections() if is_code(sec)}
    is_old_gcc = ".gcc." in name
    want = {
        (home, moves[home].insn(place)): (there, moves[there].nop(target))
        for (home, place), (there, target) in _targets(old, is_old_gcc).items()
    }
    assert _targets(new, is_old_gcc) == want


def _targets(elf, is_old_gcc):
    """(section, byte) of what each call and function address refers to, by its own place.

    bpf-gcc 12's assembler puts a named symbol's bytes in place, less 1 in a call.
    """
    mark = "<" if elf.little_endian else ">"
    sections = list(elf.iter_sections())
    names = [sec.name for sec in sections]
    table = elf.get_section_by_name(".symtab")
    out = {}
    for sec in sections:
        if not is_code(sec) or table is None:
            continue
        rels = {}
        for rel in sections:
            if rel["sh_type"] == "SHT_REL" and names[rel["sh_info"]] == sec.name:
                rels |= {
                    row["r_offset"]: table.get_symbol(row["r_info_sym"])
                    for row in rel.iter_relocations()
                }
        code = sec.data()
        at = 0
        while at < len(code):
            opcode, regs, _, imm = struct.unpack_from(f"{mark}BBhi", code, at)
            src = regs >> 4 if elf.little_endian else regs & 0xF
            symbol = rels.get(at)
            home = symbol["st_shndx"] if symbol is not None else None
            if opcode == 0x85 and src == 1 and symbol is None:
                out[sec.name, at] = (sec.name, at + 8 + 8 * imm)
            elif isinstance(home, int) and is_code(sections[home]):
                is_call = opcode == 0x85
                is_named = symbol["st_info"]["type"] != "STT_SECTION"
                if is_old_gcc and is_named:
                    byte_off = imm + is_call
                else:
                    byte_off = symbol["st_value"] + (8 * (imm + 1) if is_call else imm)
                out[sec.name, at] = (names[home], byte_off)
            at += 16 if opcode == LD_IMM64 else 8
    return out


@pytest.mark.parametrize("name", OBJECTS)
def test_llvm_readelf_has_no_complaint(name, tmp_path):
    """llvm-readelf reads all of what we write without a warning."""
    need("llvm-readelf-19")
    path = tmp_path / "patched.o"
    path.write_bytes(with_nops(name))
    done = subprocess.run(
        ["llvm-readelf-19", "-a", "-W", str(path)], capture_output=True, text=True, check=True
    )
    assert not done.stderr


@pytest.mark.parametrize("name", [name for name in OBJECTS if ".el." in name])
def test_llvm_objdump_sees_the_same_instructions(name, tmp_path):
    """Without the nops the disassembly is the original's, but for distances."""
    need("llvm-objdump-19")
    texts = []
    for file, data in (("old.o", OBJECTS[name]), ("new.o", with_nops(name))):
        (tmp_path / file).write_bytes(data)
        done = subprocess.run(
            ["llvm-objdump-19", "-dr", "--no-show-raw-insn", str(tmp_path / file)],
            capture_output=True,
            text=True,
            check=True,
        )
        texts.append(_instructions(done.stdout))
    assert texts[0] == texts[1]


def _instructions(text):
    """Instructions and relocations, without addresses, distances and the nops put in."""
    rows = re.findall(r"^\s+[0-9a-f]+:\s+(\S.*)$", text, re.MULTILINE)
    nop = "goto +0x0"
    rows = [row for row in rows if not row.startswith(nop)]
    rows = [re.sub(r"(goto|gotol) [+-]0x[0-9a-f]+.*", r"\1", row) for row in rows]
    rows = [re.sub(r"^call -?0x[0-9a-f]+$", "call", row) for row in rows]
    return [re.sub(r"^(r\d+) = -?0x[0-9a-f]+ ll.*$", r"\1 = ll", row) for row in rows]
