"""From the file to the program: references, tables, subprograms; and what does not add up."""

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.errors import FormatError, ValidationError
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import validate
from support.inputs.bpfobjects import fixture_objects

MOV, CALL, LD, EXIT = 0xB7, 0x85, 0x18, (0x95,)
FUNC, SECTION, OBJECT, GLOBAL = 2, 3, 1, 1
R_64, R_ABS64, R_32 = 1, 2, 10


def sym(build, *args, **more):
    """Add a symbol; its class is the conftest's."""
    build.symbols.append(build.symbol(*args, **more))


def two_sections(build, imm, symbol, **reloc):
    """A program in xdp that calls into .text (slots: first 0 to 1, second 2 to 3)."""
    build.code(".text", (MOV,), EXIT, (MOV, 0, 0, 0, 1), EXIT)
    build.code("xdp", (CALL, 0, 1, 0, imm), EXIT)
    sym(build, "text", ".text", type=SECTION)
    sym(build, "first", ".text", 0, 16, FUNC)
    sym(build, "second", ".text", 16, 16, FUNC, GLOBAL)
    sym(build, "main", "xdp", 0, 16, FUNC, GLOBAL)
    build.rels["xdp"] = [(0, R_32, symbol)]
    return ElfObject.parse(build.to_bytes())


@pytest.mark.parametrize(
    ("imm", "symbol", "target"),
    [
        (-1, "text", 0),
        (1, "text", 2),
        (-1, "first", 0),
        (-1, "second", 2),
        (-3, "second", 0),
    ],
)
def test_a_call_is_its_symbol_and_its_addend(build, imm, symbol, target):
    """A relocated call goes to slot ``symbol / 8 + imm + 1`` of the symbol's section."""
    code = two_sections(build, imm, symbol).code
    assert code.refs.slot.tolist() == [4]
    assert code.refs.target.tolist() == [target]
    assert code.refs.kind.tolist() == [isa.RefKind.CALL]


def test_old_binutils_put_the_symbol_s_bytes_in_place(build):
    """A field that is just its symbol's bytes, less 1 in a call, means the symbol.

    Seen in what bpf-gcc 12 with binutils 2.40 makes; calls of its static
    functions, by section symbol, are as usual.
    """
    build.code(".text", (MOV,), EXIT, (MOV,), EXIT)
    build.code("xdp", (CALL, 0, 1, 0, 15), (CALL, 0, 1, 0, 1), (LD, 1, 0, 0, 16), (0,), EXIT)
    sym(build, "text", ".text", type=SECTION)
    sym(build, "second", ".text", 16, 16, FUNC, GLOBAL)
    build.rels["xdp"] = [(0, R_32, "second"), (8, R_32, "text"), (16, R_64, "second")]
    obj = ElfObject.parse(build.to_bytes())
    assert obj.code.refs.target.tolist() == [2, 2, 2]
    patches = PatchList(obj.code)
    patches.insert_before(0, Body(isa.ja(0)))
    out = obj.with_code(patches.linearize())
    in_file = isa.from_bytes(bytes(out.sections[2].data), obj.byteorder)
    assert in_file["imm"][[0, 1, 2]].tolist() == [23, 2, 24]


def test_a_call_without_relocation_is_relative(build):
    """A call that no relocation is on goes as many slots as it says."""
    build.code(".text", (CALL, 0, 1, 0, 1), EXIT, (MOV,), EXIT)
    sym(build, "f", ".text", 0, 16, FUNC)
    code = ElfObject.parse(build.to_bytes()).code
    assert code.refs.target.tolist() == [2]
    assert code.subprogs.start.tolist() == [0, 2]
    assert code.subprogs.names == ("f", "")


@pytest.mark.parametrize(("imm", "symbol"), [(16, "text"), (0, "second")])
def test_a_function_address_is_in_bytes(build, imm, symbol):
    """An ld_imm64 against code means byte ``symbol + imm``; the program has PSEUDO_FUNC."""
    build.code(".text", (MOV,), EXIT, (MOV,), EXIT)
    build.code("xdp", (LD, 2, 0, 0, imm), (0,), EXIT)
    sym(build, "text", ".text", type=SECTION)
    sym(build, "second", ".text", 16, 16, FUNC, GLOBAL)
    build.rels["xdp"] = [(0, R_64, symbol)]
    code = ElfObject.parse(build.to_bytes()).code
    assert code.refs.kind.tolist() == [isa.RefKind.FUNC]
    assert code.refs.target.tolist() == [2]
    assert isa.src(code.insns)[4] == 4
    assert isa.dst(code.insns)[4] == 2


def test_what_is_not_in_the_code_is_external(build):
    """What is against undefined symbols and data keeps its field and is no reference."""
    build.code("xdp", (CALL, 0, 1, 0, -1), (LD, 1, 0, 0, 24), (0,), EXIT)
    build.sections.append(build.section(".data", bytes(32), flags=3, align=8))
    sym(build, "data", ".data", type=SECTION)
    sym(build, "bpf_kfunc", bind=GLOBAL)
    build.rels["xdp"] = [(0, R_32, "bpf_kfunc"), (8, R_64, "data")]
    code = ElfObject.parse(build.to_bytes()).code
    assert code.external.tolist() == [0, 1]
    assert not len(code.refs.slot)
    assert code.insns["imm"].tolist() == [-1, 24, 0, 0]


def test_subprogs_start_at_sections_symbols_and_targets():
    """Section starts, function symbols and call targets start a subprog; basic blocks do not."""
    found = dict(fixture_objects())
    code = ElfObject.parse(found["xdp_parse.clang-14.v1.eb.o"]).code
    assert code.sections[0] == ".text"
    assert len(code.subprogs) == 7
    assert all(code.subprogs.names)
    assert len(code.tables["label"]) == 18


def test_line_info_names_the_source():
    """A slot's source line is what .BTF.ext and .BTF say."""
    code = ElfObject.parse(dict(fixture_objects())["xdp_balancer.clang-19.v3.el.g.o"]).code
    line = code.source(0)
    assert line is not None
    assert line.file.endswith("xdp_balancer.c")
    assert line.line > 1


@pytest.mark.parametrize("name", [name for name, _ in fixture_objects()])
def test_all_fixtures_are_valid_programs(name):
    """The program of every fixture is structurally sound, but for the one made not to be."""
    code = ElfObject.parse(dict(fixture_objects())[name]).code
    if name.startswith("asm_malformed"):
        with pytest.raises(ValidationError):
            validate(code)
    else:
        assert validate(code) is None


def test_tables_sit_where_the_file_says(build):
    """Relocation, symbol and label rows are on the slots of their byte offsets."""
    obj = two_sections(build, 1, "text")
    sym(build, "Lblock", "xdp", 8)
    obj = ElfObject.parse(build.to_bytes())
    tables = obj.code.tables
    assert tables["reloc"].insn.tolist() == [4]
    assert sorted(tables["symbol"].insn.tolist()) == [0, 2, 4]
    assert tables["label"].insn.tolist() == [5]
    ends = dict(zip(tables["symbol"].insn.tolist(), tables["symbol"].end.tolist(), strict=True))
    assert ends == {0: 2, 2: 4, 4: 6}


def test_jump_table_entries_are_slots():
    """An entry of .jumptables counts bytes from the start of its code's section."""
    for order in ("el", "eb"):
        name = f"asm_jump_table.clang-19.v4.{order}.o"
        code = ElfObject.parse(dict(fixture_objects())[name]).code
        table = code.tables["jump_table"]
        by_place = np.argsort(table.rows["byte_off"])
        # From the source: Lzero, Lone, Ldefault, Lthree; Leven, Lodd.
        assert table.insn[by_place].tolist() == [9, 11, 14, 13, 25, 23]


def test_a_pointer_to_code_in_data_is_a_row(build):
    """Data that holds the address of a static function, by section symbol, follows it."""
    build.code(".text", (MOV,), EXIT, (MOV,), EXIT)
    where = (16).to_bytes(8, "little" if build.order == "<" else "big")
    build.sections.append(build.section(".data", bytes(8) + where, flags=3, align=8))
    sym(build, "text", ".text", type=SECTION)
    sym(build, "second", ".text", 16, 16, FUNC)
    build.rels[".data"] = [(8, R_ABS64, "text")]
    table = ElfObject.parse(build.to_bytes()).code.tables["code_address"]
    assert table.insn.tolist() == [2]
    assert table.rows["byte_off"].tolist() == [8]


def roots(code):
    """Names of the subprogs that are entered from outside."""
    return {
        name for name, root in zip(code.subprogs.names, code.subprogs.is_root, strict=True) if root
    }


def test_programs_and_what_data_points_at_are_roots(build):
    """Functions of program sections and those that data points at are entered from outside."""
    build.code(".text", EXIT, EXIT, EXIT)
    build.code("xdp", EXIT)
    build.sections.append(build.section(".data", bytes(16), flags=3, align=8))
    sym(build, "text", ".text", type=SECTION)
    for row, name in enumerate(("pointed", "lonely", "by_name")):
        sym(build, name, ".text", 8 * row, 8, FUNC, GLOBAL)
    sym(build, "main", "xdp", 0, 8, FUNC, GLOBAL)
    build.rels[".data"] = [(0, R_ABS64, "text"), (8, R_ABS64, "by_name")]
    assert roots(ElfObject.parse(build.to_bytes()).code) == {"pointed", "by_name", "main"}


def test_an_exception_callback_is_a_root():
    """A function that only a declaration tag of .BTF names is entered from outside."""
    obj = ElfObject.parse(dict(fixture_objects())["exceptions.clang-19.v3.el.g.o"])
    assert "on_throw" in roots(obj.code)
    linked = [obj.link(info.name).program for info in obj.programs]
    assert any("on_throw" in roots(program) for program in linked)


def refused(build, what):
    """Reading the code raises with a place."""
    obj = ElfObject.parse(build.to_bytes())
    assert obj.to_bytes() == build.to_bytes()
    with pytest.raises(FormatError, match=what) as caught:
        _ = obj.code
    assert caught.value.byte_off is not None


def test_a_call_that_leaves_its_section_is_refused(build):
    """Without a relocation a call cannot leave its section."""
    build.code(".text", (MOV,), EXIT)
    build.code("xdp", (CALL, 0, 1, 0, -3), EXIT)
    sym(build, "main", "xdp", 0, 16, FUNC, GLOBAL)
    refused(build, "no relocation")


def test_a_relocation_inside_of_an_instruction_is_refused(build):
    """A relocation applies to the start of an instruction."""
    build.code("xdp", (CALL, 0, 1, 0, -1), EXIT)
    sym(build, "kfunc", bind=GLOBAL)
    build.rels["xdp"] = [(4, R_32, "kfunc")]
    refused(build, "no instruction starts")


def test_a_relocation_of_a_second_slot_is_refused(build):
    """The second slot of an ld_imm64 has no field of its own."""
    build.code("xdp", (LD, 1), (0,), EXIT)
    sym(build, "var", bind=GLOBAL)
    build.rels["xdp"] = [(8, R_64, "var")]
    refused(build, "cannot apply")


def test_a_relocation_of_a_plain_instruction_against_code_is_refused(build):
    """Only calls of subprogs and ld_imm64 can refer to code."""
    build.code("xdp", (MOV,), EXIT)
    sym(build, "xdp", "xdp", type=SECTION)
    build.rels["xdp"] = [(0, R_64, "xdp")]
    refused(build, "cannot apply")


def test_two_relocations_against_code_on_one_instruction_are_refused(build):
    """One field cannot hold two targets."""
    build.code("xdp", (CALL, 0, 1, 0, -1), EXIT)
    sym(build, "xdp", "xdp", type=SECTION)
    build.rels["xdp"] = [(0, R_32, "xdp"), (0, R_32, "xdp")]
    refused(build, "cannot apply")


def test_a_call_into_the_middle_of_a_function_is_refused(build):
    """A target inside of a function symbol's range is not a function."""
    build.code(".text", (MOV,), (MOV,), (MOV,), EXIT)
    build.code("xdp", (CALL, 0, 1, 0, 1), EXIT)
    sym(build, "text", ".text", type=SECTION)
    sym(build, "f", ".text", 0, 32, FUNC)
    build.rels["xdp"] = [(0, R_32, "text")]
    refused(build, "no function can start")


@pytest.mark.parametrize(("value", "size"), [(4, 0), (40, 0), (0, 24), (0, 12), (1 << 63, 0)])
def test_a_symbol_that_covers_no_instructions_is_refused(build, value, size):
    """A symbol in code starts on an instruction and ends within the section."""
    build.code("xdp", (MOV,), EXIT)
    sym(build, "f", "xdp", value, size, FUNC)
    refused(build, "not its instructions")


def test_code_that_is_no_whole_number_of_instructions_is_refused(build):
    """A code section's size is a multiple of 8."""
    build.sections.append(build.section("xdp", bytes(12), flags=6, align=8))
    refused(build, "whole instructions")


def test_explicit_addends_are_refused(build):
    """SHT_RELA is nothing that a BPF loader reads."""
    build.code("xdp", EXIT)
    build.sections.append(build.section(".relaxdp", bytes(24), type=4, info="xdp", entsize=24))
    refused(build, "SHT_RELA")


def test_calls_of_a_stripped_object_that_make_no_sense_are_external():
    """Without symbols and relocations, calls whose targets are lost are kept as they are."""
    obj = ElfObject.parse(dict(fixture_objects())["xdp_parse.clang-19.v3.el.g.strip-all.o"])
    assert len(obj.code.external) > 0
    assert not obj.symbols


def test_calls_of_an_object_without_symbols_that_make_sense_are_references(build):
    """Without symbols, a call to behind an exit is a call."""
    build.code(".text", (CALL, 0, 1, 0, 1), EXIT, (MOV,), EXIT)
    data = build.to_bytes()
    obj = ElfObject.parse(data.replace(b".symtab", b".nothing"[:7]))
    assert obj.code.refs.target.tolist() == [2]


@pytest.mark.parametrize("form", ["old", "new"])
def test_callx_has_its_register_wherever_the_compiler_put_it(build, form):
    """LLVM up to 18 has a callx's register in imm, later ones in dst; both mean the same.

    What is written back has the form that was read, also after an edit.
    """
    regs = (0, 0, 0, 7) if form == "old" else (7, 0, 0, 0)
    build.code(".text", (0x79, 7, 1), (0x8D, *regs), EXIT)
    sym(build, "step", ".text", 0, 24, FUNC, GLOBAL)
    obj = ElfObject.parse(build.to_bytes())
    callx = obj.code.insns[1:2]
    assert (isa.dst(callx).tolist(), callx["imm"].tolist()) == ([7], [0])
    validate(obj.code)
    patches = PatchList(obj.code)
    patches.insert_before(0, Body.asm("r0 = 0"))
    new = obj.with_code(patches.linearize())
    text = next(one for one in new.sections if one.name == ".text")
    assert bytes(text.data)[16:24] == build.slot(0x8D, *regs)


def test_callx_of_both_forms_in_one_object_is_left_as_it_is(build):
    """Where one callx has its register in dst, a number in imm is none, and an error later."""
    build.code(".text", (0x8D, 0, 0, 0, 7), (0x8D, 6), EXIT)
    sym(build, "step", ".text", 0, 24, FUNC, GLOBAL)
    obj = ElfObject.parse(build.to_bytes())
    assert obj.code.insns["imm"].tolist() == [7, 0, 0]
