"""Traits of objects that old compilers, several sections of one name, and other loaders have."""

import pytest

from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.elf.link import TargetKind
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.errors import LinkError

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
    with pytest.raises(LinkError, match="no function 'main'; it has: inner, entry, second"):
        text_only.link("main")
