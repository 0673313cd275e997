"""Traits of objects that old compilers, several sections of one name, and other loaders have."""

import pytest

from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.elf.link import TargetKind
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.errors import LinkError
from bpfpatch.passes import Pipeline
from bpfpatch.patch import Body, PatchList

MOV, CALL, LD, EXIT = 0xB7, 0x85, 0x18, (0x95,)
FUNC, SECTION, OBJECT, GLOBAL = 2, 3, 1, 1
R_64, R_32 = 1, 10


def record(build, *words):
    """A legacy map: its type, sizes and number of entries."""
    order = "little" if build.order == "<" else "big"
    return b"".join(word.to_bytes(4, order) for word in (*words, 0))


@pytest.mark.parametrize(
    "names", [("maps", "maps"), ("maps/one", "maps/two"), ("maps", "maps/two")]
)
def test_legacy_maps_in_several_sections(build, names):
    """Each section of maps has records of its own, whether they share a name or have one each."""
    build.code("xdp", (LD, 1), (0,), (LD, 2), (0,), EXIT)
    for number, name in enumerate(names, 2):
        data = record(build, number, 4, 8, number)
        build.sections.append(build.section(name, data, flags=3, align=4))
    build.symbols += [
        build.symbol("main", "xdp", 0, 40, FUNC, GLOBAL),
        build.symbol("one", 2, 0, 20, OBJECT, GLOBAL),
        build.symbol("two", 3, 0, 20, OBJECT, GLOBAL),
    ]
    build.rels["xdp"] = [(0, R_64, "one"), (16, R_64, "two")]
    obj = ElfObject.parse(build.to_bytes())
    assert [(info.name, info.kind) for info in obj.maps] == [("one", "legacy"), ("two", "legacy")]
    found = {spec.name: (int(spec.type), spec.max_entries) for spec in map_definitions(obj)}
    assert found == {"one": (2, 2), "two": (3, 3)}
    targets = [row.target for row in obj.link("main").relocations]
    assert [(one.kind, one.name) for one in targets] == [
        (TargetKind.MAP, "one"),
        (TargetKind.MAP, "two"),
    ]


def test_data_that_is_called_like_maps_is_none(build):
    """Only ``maps`` and what is below it holds records."""
    build.code("xdp", (MOV,), EXIT)
    build.sections.append(build.section("mapsdata", bytes(20), flags=3, align=4))
    build.symbols.append(build.symbol("one", "mapsdata", 0, 20, OBJECT, GLOBAL))
    assert ElfObject.parse(build.to_bytes()).maps == ()


@pytest.fixture
def text_only(build):
    """Two global functions of .text, one of which calls a static one."""
    build.code(".text", (MOV, 0, 0, 0, 7), EXIT, (CALL, 0, 1, 0, -3), EXIT, (MOV,), EXIT)
    for name, start, bind in (("inner", 0, 0), ("entry", 16, GLOBAL), ("second", 32, GLOBAL)):
        build.symbols.append(build.symbol(name, ".text", start, 16, FUNC, bind))
    return ElfObject.parse(build.to_bytes())


def test_functions_of_text_alone_can_be_linked(text_only):
    """An object for a user-space VM has no programs, but functions to run by their names."""
    assert text_only.programs == ()
    assert [info.name for info in text_only.functions] == ["inner", "entry", "second"]
    linked = text_only.link("entry")
    assert linked.program.to_bytes() == assemble("call f; exit; f: r0 = 7; exit").to_bytes()


def test_unknown_function_is_refused_with_the_names_there_are(text_only):
    """Without programs the error names the functions."""
    with pytest.raises(LinkError, match="no function 'main'; there are: inner, entry, second"):
        text_only.link("main")


def old_object(build):
    """What compilers of 2015 made: no machine, functions without types and sizes."""
    build.machine = 0
    build.code("xdp", (LD, 1), (0,), (CALL, 0, 1, 0, 1), EXIT, (MOV,), EXIT)
    build.sections.append(build.section("maps", record(build, 2, 4, 8, 1), flags=3, align=4))
    build.symbols += [
        build.symbol("LBB0_1", "xdp", 24),
        build.symbol("main", "xdp", 0, 0, 0, GLOBAL),
        build.symbol("helper", "xdp", 32, 0, 0, GLOBAL),
        build.symbol("table", "maps", 0, 0, 0, GLOBAL),
    ]
    build.rels["xdp"] = [(0, R_64, "table")]
    return ElfObject.parse(build.to_bytes())


def test_object_of_no_machine_is_read_as_bpf_with_a_notice(build):
    """Old compilers left e_machine empty, and loaders take that; it is said."""
    obj = old_object(build)
    assert obj.notices == ("its e_machine is 0, as old compilers leave it; it is read as BPF",)
    patches = PatchList(obj.code)
    patches.insert_before(0, Body.asm("r0 = 0"))
    new = obj.with_code(patches.linearize())
    assert new.notices == obj.notices
    assert new.to_bytes()[18:20] == bytes(2)


def test_functions_without_a_type_are_functions(build):
    """In an object in which no symbol is a function, global ones in code are; labels are none."""
    obj = old_object(build)
    assert obj.code.subprogs.names == ("main", "helper")
    assert [(info.name, info.start, info.end) for info in obj.programs] == [
        ("main", 0, 4),
        ("helper", 4, 6),
    ]
    assert [info.name for info in obj.maps] == ["table"]
    assert obj.link("main").program.subprogs.names == ("main", "helper")


def test_labels_are_no_functions_where_functions_have_types(build):
    """One symbol of type function is enough to know what the others are."""
    build.code("xdp", (MOV,), (MOV,), EXIT)
    build.symbols += [
        build.symbol("main", "xdp", 0, 24, FUNC, GLOBAL),
        build.symbol("here", "xdp", 8, 0, 0, GLOBAL),
    ]
    obj = ElfObject.parse(build.to_bytes())
    assert [info.name for info in obj.programs] == ["main"]


@pytest.mark.parametrize("section", [".text.helper", ".text", "xdp"])
def test_helper_that_is_not_called_any_more_goes(build, section):
    """Functions of .text.NAME, and local ones of any section, are no programs: dce removes them."""
    call = (CALL, 0, 1, 0, 1 if section == "xdp" else -1)
    build.code("xdp", (MOV,), EXIT, call, EXIT, (MOV,), EXIT)
    if section != "xdp":
        build.code(section, (MOV,), EXIT)
    size = 32 if section == "xdp" else 48
    build.symbols += [
        build.symbol("helper", section, 32 if section == "xdp" else 0, 16, FUNC),
        build.symbol("main", "xdp", 0, size, FUNC, GLOBAL),
    ]
    if section != "xdp":
        build.rels["xdp"] = [(16, R_32, "helper")]
    obj = ElfObject.parse(build.to_bytes())
    assert "helper" not in [info.name for info in obj.programs]
    new, _ = Pipeline.parse("dce").run_object(obj)
    assert new.code.subprogs.names == ("main",)


def test_common_symbol_is_named_as_what_it_is(build):
    """A variable without a place is no symbol of the kernel's."""
    build.code("xdp", (LD, 1), (0,), EXIT)
    build.symbols += [
        build.symbol("main", "xdp", 0, 24, FUNC, GLOBAL),
        build.symbol("shared", 0xFFF2, 8, 8, OBJECT, GLOBAL),
    ]
    build.rels["xdp"] = [(0, R_64, "shared")]
    with pytest.raises(LinkError, match="shared is a common symbol"):
        ElfObject.parse(build.to_bytes()).link("main")


def test_bytes_of_a_relocated_call_are_the_file_s(build):
    """What the file has in a field that a relocation completes can be seen."""
    build.code("xdp", (CALL, 0, 1, 0, -1), EXIT)
    build.code(".text", (MOV,), EXIT)
    build.symbols += [
        build.symbol("main", "xdp", 0, 16, FUNC, GLOBAL),
        build.symbol("helper", ".text", 0, 16, FUNC, GLOBAL),
    ]
    build.rels["xdp"] = [(0, R_32, "helper")]
    obj = ElfObject.parse(build.to_bytes())
    assert obj.code.insns["imm"].tolist() == [1, 0, 0, 0]
    assert obj.file_insns["imm"].tolist() == [-1, 0, 0, 0]
