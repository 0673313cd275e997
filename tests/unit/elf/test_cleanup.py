"""Landing pads and their ranges, and sections that say what is not known of code."""

import struct

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.elf.addresses import is_debug_name
from bpfpatch.errors import LostRowError, UnsupportedError
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover.mapping import SECTION as COVER_SECTION
from bpfpatch.passes.cover.mapping import CoverMap
from bpfpatch.patch import Body, PatchList

MOV, CALL, EXIT = 0xB7, 0x85, (0x95,)
FUNC, SECTION, GLOBAL = 2, 3, 1
R_64, R_ABS64, R_NODYLD32 = 1, 2, 4
BODY = ((MOV, 6), (CALL, 0, 0, 0, 5), (MOV,), EXIT, (MOV, 0, 0, 0, 1), EXIT)
"""A call that may unwind (slot 1), and its landing pad (slot 4), which nothing jumps to."""


def with_ranges(build, *ranges, symbol="section", body=BODY):
    """A program with ranges of (begin, end, landing pad), in slots."""
    build.code("xdp", *body)
    build.symbols += [
        build.symbol("section", "xdp", type=SECTION),
        build.symbol("main", "xdp", 0, 8 * len(body), FUNC, GLOBAL),
    ]
    words = [8 * slot for one in ranges for slot in one]
    data = struct.pack(f"{build.order}{len(words)}I", *words)
    build.sections.append(build.section(".bpf_cleanup", data))
    build.rels[".bpf_cleanup"] = [(4 * i, R_NODYLD32, symbol) for i in range(len(words))]
    return ElfObject.parse(build.to_bytes())


def ranges_of(obj):
    """What .bpf_cleanup says, in slots."""
    section = next(one for one in obj.sections if one.name == ".bpf_cleanup")
    mark = "<" if obj.byteorder == "little" else ">"
    words = struct.unpack(f"{mark}{section.size // 4}I", bytes(section.data))
    return [tuple(word // 8 for word in words[at : at + 3]) for at in range(0, len(words), 3)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("symbol", ["section", "main"])
def test_dce_keeps_a_landing_pad(build, order, symbol):
    """What only a landing pad leads to is no dead code, and the file stays as it was."""
    build.order = order
    obj = with_ranges(build, (1, 2, 4), symbol=symbol)
    new, result = Pipeline.parse("dce,nops").run_object(obj)
    assert result.remap.is_identity
    assert new.to_bytes() == obj.to_bytes()


def test_dce_removes_what_no_pad_leads_to(build):
    """Dead code between the code and its pad goes, and the pad's number says where it is then."""
    body = (*BODY[:4], (MOV,), EXIT, *BODY[4:])
    obj = with_ranges(build, (1, 2, 6), body=body)
    new, _ = Pipeline.parse("dce").run_object(obj)
    assert ranges_of(new) == [(1, 2, 4)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_ranges_grow_with_what_is_put_into_them(build, order):
    """A range covers what is put in front of its instructions; its pad runs what is put there."""
    build.order = order
    obj = with_ranges(build, (1, 2, 4), (0, 6, 4))
    new, _ = Pipeline.parse("sprinkle").run_object(obj)
    assert ranges_of(new) == [(2, 4, 8), (0, 12, 8)]
    back, _ = Pipeline.parse("nops").run_object(new)
    assert back.to_bytes() == obj.to_bytes()


def test_range_that_loses_its_code_is_empty(build):
    """A range of which all instructions are deleted covers nothing."""
    obj = with_ranges(build, (1, 2, 4))
    patches = PatchList(obj.code)
    patches.delete(1)
    assert ranges_of(obj.with_code(patches.linearize())) == [(1, 1, 3)]


def test_deleting_a_pad_with_nothing_behind_it_is_refused(build):
    """A landing pad has to be somewhere."""
    obj = with_ranges(build, (1, 2, 4))
    patches = PatchList(obj.code)
    patches.delete([4, 5])
    with pytest.raises(LostRowError, match="needs it"):
        obj.with_code(patches.linearize())


def test_pass_that_needs_to_know_what_a_pad_reads_is_refused(build):
    """Which registers are free within a range depends on its pad, which such passes do not see."""
    obj = with_ranges(build, (1, 2, 4))
    with pytest.raises(UnsupportedError, match=r"landing pad.*pass zext"):
        Pipeline.parse("zext").run_object(obj)


CALLER = ((MOV, 6), (CALL, 0, 0, 0, 5), (0x15, 0, 0, 1, 7), (MOV,), EXIT)
"""Another function, of which a comparison needs a register to be blinded."""


def with_two(build):
    """The function that has a landing pad, and one in another section that has none."""
    build.code("tc", *CALLER)
    build.symbols += [build.symbol("other", "tc", 0, 8 * len(CALLER), FUNC, GLOBAL)]
    return with_ranges(build, (1, 2, 5), body=((MOV, 6), *BODY[1:3], (0x15, 0, 0, 0, 7), *BODY[3:]))


def test_constants_in_a_function_with_a_pad_stay_where_they_need_a_register(build):
    """Others do not, and which stay is said."""
    obj = with_two(build)
    new, result = Pipeline.parse("blind{seed=1}").run_object(obj)
    assert len([one for one in result.notices if "landing pad" in one]) == 1
    compares = [insn for insn in new.code.insns if insn["code"] == 0x15]
    assert [int(insn["imm"]) for insn in compares] == [7]
    with pytest.raises(UnsupportedError, match="landing pad"):
        Pipeline.parse("blind{seed=1,strict=true}").run_object(obj)


@pytest.mark.parametrize("options", ["", "edges=true", "count=percpu", "tree=false"])
def test_a_function_with_a_pad_is_not_counted(build, options):
    """How often its blocks ran is unknown, its pad's, too; all blocks of others are counted."""
    obj = with_two(build)
    new, result = Pipeline.parse(f"cover{{{options}}}").run_object(obj)
    new = ElfObject.parse(new.to_bytes())
    mapping = next(one.data for one in new.sections if one.name == COVER_SECTION)
    other, main = CoverMap.parse(bytes(mapping)).functions
    assert (other.name, other.why) == ("other", "")
    assert "landing pad" in main.why
    assert len(main.left_out()) == len(main.blocks) == 4
    assert any("landing pad" in one for one in result.notices)
    assert ranges_of(new) == [(1, 2, 5)]


def test_a_function_with_a_pad_is_not_traced(build):
    """A call of a helper destroys registers of which nothing says who reads them; others are."""
    obj = with_two(build)
    new, _ = Pipeline.parse("trace{at=other+2,to=ring}").run_object(obj)
    assert len(new.code) > len(obj.code)
    with pytest.raises(UnsupportedError, match="landing pad"):
        Pipeline.parse("trace{at=main+2,to=ring}").run_object(obj)


@pytest.mark.parametrize("what", ["odd", "no relocation", "end first", "another type"])
def test_ranges_that_are_not_understood_keep_code_in_its_place(build, what):
    """Code that such a section is about is not moved; what is not edited is written back."""
    given = (2, 1, 4) if what == "end first" else (1, 2, 4)
    obj = with_ranges(build, given)
    if what == "odd":
        build.sections[-1].data += bytes(4)
    if what == "no relocation":
        build.rels[".bpf_cleanup"].pop()
    if what == "another type":
        build.rels[".bpf_cleanup"] = [
            (at, R_64, name) for at, _, name in build.rels[".bpf_cleanup"]
        ]
    obj = ElfObject.parse(build.to_bytes())
    assert obj.with_code(PatchList(obj.code).linearize()).to_bytes() == obj.to_bytes()
    with pytest.raises(UnsupportedError, match=r"section \.bpf_cleanup describes the code"):
        Pipeline.parse("sprinkle").run_object(obj)


@pytest.mark.parametrize("name", [".gcc_except_table", ".gcc_except_table.main", ".tool_notes"])
def test_sections_that_are_not_known_keep_code_in_its_place(build, name):
    """Tables of exceptions count bytes of code, and tools' own may as well."""
    build.code("xdp", (MOV,), EXIT)
    build.symbols.append(build.symbol("main", "xdp", 0, 16, FUNC, GLOBAL))
    build.sections.append(build.section(name, bytes(16), flags=2 if "gcc" in name else 0))
    if name == ".tool_notes":
        build.rels[name] = [(0, R_ABS64, "main")]
    obj = ElfObject.parse(build.to_bytes())
    assert obj.with_code(PatchList(obj.code).linearize()).to_bytes() == obj.to_bytes()
    with pytest.raises(UnsupportedError, match=f"section {name} describes the code"):
        Pipeline.parse("sprinkle").run_object(obj)
    patches = PatchList(obj.code)
    patches.replace(0, Body.asm("r0 = 7"))
    assert bytes(obj.with_code(patches.linearize()).sections[1].data[:8])[4:5] in (b"\7", b"\0")


def test_relocation_that_only_names_a_function_is_known(build):
    """A relocation of type 0, as a profile of the call graph has, holds no address."""
    build.code("xdp", (MOV,), EXIT)
    build.symbols.append(build.symbol("main", "xdp", 0, 16, FUNC, GLOBAL))
    build.sections.append(build.section(".llvm.call-graph-profile", bytes(8)))
    build.rels[".llvm.call-graph-profile"] = [(0, 0, "main"), (0, 0, "main")]
    obj = ElfObject.parse(build.to_bytes())
    new, _ = Pipeline.parse("sprinkle").run_object(obj)
    assert len(new.code) == 4


@pytest.mark.parametrize(
    ("name", "is_dwarf"),
    [
        (".debug_info", True),
        (".debug_str_offsets.dwo", True),
        (".zdebug_line", True),
        (".debug_text.main", False),
        (".debug_helpers", False),
        (".eh_frame", True),
    ],
)
def test_what_is_called_like_dwarf_is_not_always_dwarf(name, is_dwarf):
    """Sections of DWARF have certain names; a section of one's own may start like them."""
    assert is_debug_name(name) == is_dwarf
