"""Lines, CO-RE records and member places against clang and llvm-objdump."""

import functools
import io
import re
import struct
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch.btf import Btf, BtfBuilder, BtfExt, source_line
from support.inputs.bpfobjects import fixture_objects
from support.machine.tools import need

SOURCE = r"""
typedef unsigned int u32;
struct inner { u32 x; char name[5]; };
union un { u32 a; unsigned long long b; };
struct outer {
  u32 flags : 3; u32 more : 29;
  struct inner in[3];
  union { int q; struct { short r; short s; }; };
  int (*cb)(struct outer *, const char *);
  volatile union un v;
  struct fwd *f;
  double d;
} __attribute__((aligned(16)));
struct outer glob;
#define AT(path) __builtin_offsetof(struct outer, path)
__attribute__((section(".offs"), used)) u32 offs[] = {
  AT(in), AT(in[2].x), AT(in[1].name[3]), AT(q), AT(r), AT(s), AT(cb), AT(v.b), AT(f), AT(d),
  sizeof(struct outer), sizeof(struct inner), sizeof(union un)};
struct ctx { u32 a, b; } __attribute__((preserve_access_index));
struct nest { int pad; struct { int deep; union { int l; long m; }; }; struct ctx c[4]; }
  __attribute__((preserve_access_index));
static __attribute__((noinline)) int sub(struct ctx *ctx, int k)
{
  return ctx->b * k;
}
__attribute__((section("xdp"))) int first(struct ctx *ctx)
{
  struct nest *n = (void *)(long)ctx->a;
  int sum = n->deep + n->m;
  if (ctx->b > 7)
    return sub(ctx, 3);
  sum += n->c[3].b;
  glob.in[1].x = sum;
  return sum;
}
__attribute__((section("tc"))) int second(struct ctx *ctx)
{
  return ctx->a + 1;
}
"""
PATHS = ["in", "in[2].x", "in[1].name[3]", "q", "r", "s", "cb", "v.b", "f", "d"]
SIZES = ["outer", "inner", "un"]
KINDS = {0: "byte_off", 1: "byte_sz", 2: "field_exists", 3: "signed", 4: "lshift_u64"}
KINDS[5] = "rshift_u64"


def run(*command):
    """Run a command; its standard output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", params=["bpfel", "bpfeb"])
def built(request, tmp_path_factory):
    """The source above, without DWARF, so that llvm-objdump has .BTF.ext alone to read."""
    need("clang-19", "llvm-strip-19", "llvm-objdump-19")
    folder = tmp_path_factory.mktemp("btf")
    (folder / "a.c").write_text(SOURCE)
    out = folder / "a.o"
    run(
        "clang-19", "-target", request.param, "-g", "-O2", "-c", str(folder / "a.c"), "-o", str(out)
    )
    run("llvm-strip-19", "-g", str(out))
    return out


def parts(data):
    """(ELF file, Btf, BtfExt) of an object."""
    elf = ELFFile(io.BytesIO(data))
    btf = Btf.parse(elf.get_section_by_name(".BTF").data())
    return elf, btf, BtfExt.parse(elf.get_section_by_name(".BTF.ext").data(), btf)


def test_places_are_the_compiler_s(built):
    """offset_of() and size_of() are what offsetof and sizeof are."""
    elf, btf, _ = parts(built.read_bytes())
    data = elf.get_section_by_name(".offs").data()
    order = "<" if elf.little_endian else ">"
    expected = list(struct.unpack(f"{order}{len(data) // 4}I", data))
    ours = [btf.offset_of("struct outer", path) for path in PATHS]
    ours += [btf.size_of(btf.find_one(name)) for name in SIZES]
    assert ours == expected


def objdump_lines(path):
    """{section: [(slot, file:line or "")]}, an entry for each instruction, as llvm-objdump prints.

    It prints a line where an instruction has a record and the one before it
    had not the same line.
    """
    out: dict[str, list[tuple[int, str]]] = {}
    section = line = None
    for text in run("llvm-objdump-19", "-dl", "--no-show-raw-insn", str(path)).splitlines():
        if match := re.match(r"Disassembly of section (.*):", text):
            section = out.setdefault(match[1], [])
        elif match := re.match(r"; (.*:\d+)$", text):
            line = match[1]
        elif match := re.match(r" +(\d+):\t", text):
            section.append((int(match[1]), line or ""))
            line = None
    return out


def test_lines(built):
    """The instruction and line of each record are llvm-objdump's."""
    _, btf, ext = parts(built.read_bytes())
    printed = objdump_lines(built)
    assert {section.name for section in ext.line_info} == set(printed)
    for section in ext.line_info:
        ours = {
            int(record["insn_off"]) // 8: str(source_line(btf, record))
            for record in section.records
        }
        before = ""
        for slot, line in printed[section.name]:
            now = ours.pop(slot, "")
            assert line == (now if now != before else ""), (section.name, slot)
            before = now
        assert ours == {}


def test_line_text(built):
    """The text of each record is the line of the source file."""
    _, btf, ext = parts(built.read_bytes())
    source = (built.parent / "a.c").read_text().splitlines()
    for section in ext.line_info:
        for record in section.records:
            found = source_line(btf, record)
            assert found.text == source[found.line - 1]
            assert found.column <= len(found.text)


def test_functions(built):
    """func_info has each function's symbol, at its place."""
    elf, btf, ext = parts(built.read_bytes())
    names = [section.name for section in elf.iter_sections()]
    symbols = {
        (names[symbol["st_shndx"]], symbol["st_value"], symbol.name)
        for symbol in elf.get_section_by_name(".symtab").iter_symbols()
        if symbol["st_info"]["type"] == "STT_FUNC"
    }
    ours = {
        (section.name, int(record["insn_off"]), btf.name_of(int(record["type_id"])))
        for section in ext.func_info
        for record in section.records
    }
    assert ours == symbols


MOST_WITH_EXT = 20
CORE_LINE = re.compile(r"([0-9a-f]{16}):  CO-RE <(\w+)> \[(\d+)\] \w+ [^: ]+::(.+) \(([\d:]+)\)")


def compare_core(path, data):
    """Field-based CO-RE records: place, kind, type, access string and member path."""
    _, btf, ext = parts(data)
    ours = set()
    for section in ext.core_relo:
        for record in section.records:
            insn_off, type_id, access_off, kind = (int(value) for value in record)
            if kind in KINDS:
                access = btf.string(access_off)
                place = btf.access_path(type_id, access)
                ours.add((insn_off, KINDS[kind], type_id, place.path, access))
    theirs = set()
    for text in run("llvm-objdump-19", "-dr", "--no-show-raw-insn", str(path)).splitlines():
        if (match := CORE_LINE.search(text)) and not match[2].startswith("enum"):
            path_text = re.sub(r"<anon \d+>\.?", "", match[4])
            theirs.add((int(match[1], 16), match[2], int(match[3]), path_text, match[5]))
    assert ours == theirs
    return len(ours)


def test_core_records(built):
    """Each record of the compiled source is llvm-objdump's."""
    assert compare_core(built, built.read_bytes()) >= 5


def test_core_records_of_fixtures(tmp_path):
    """The same for all fixtures that clang built."""
    need("llvm-objdump-19")
    path = tmp_path / "a.o"
    count = 0
    for name, data in fixture_objects():
        elf = ELFFile(io.BytesIO(data))
        if "clang" in name and elf.get_section_by_name(".BTF.ext") is not None:
            path.write_bytes(data)
            count += compare_core(path, data)
    assert count > 0


@functools.cache
def fixture_parts():
    """(name, .BTF, .BTF.ext) of all fixtures that have both."""
    out = []
    for name, data in fixture_objects():
        elf = ELFFile(io.BytesIO(data))
        found = [elf.get_section_by_name(section) for section in (".BTF", ".BTF.ext")]
        if None not in found:
            out.append((name, found[0].data(), found[1].data()))
    return out


def test_layout_is_clang_s():
    """A .BTF.ext that is laid out anew has clang's very bytes."""
    seen = 0
    for name, section, ext_section in fixture_parts():
        ext = BtfExt.parse(ext_section, Btf.parse(section))
        made = BtfExt.empty(ext.byteorder)
        made = made.with_sections(ext.func_info, ext.line_info, ext.core_relo)
        if "clang" in name:
            assert made.to_bytes() == ext_section, name
            seen += 1
    assert seen > MOST_WITH_EXT


def test_types_are_clang_s():
    """A .BTF that is built from nothing out of clang's types has clang's very records."""
    seen = 0
    for name, section, _ in fixture_parts():
        btf = Btf.parse(section)
        out = BtfBuilder(byteorder=btf.byteorder)
        for text in btf.string_bytes[1:-1].split(b"\0"):
            out.string(text.decode("utf-8", "surrogateescape"))
        for type_id in range(1, len(btf)):
            out.add(btf.type(type_id))
        if "clang" in name:
            assert out.build().to_bytes() == section, name
            seen += 1
    assert seen > MOST_WITH_EXT
