"""New maps, variables and sections leave what is there alone, and can be referred to."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bpfpatch import isa, kernel
from bpfpatch.btf import Array, DataSec, Kind, Var
from bpfpatch.elf import ElfObject, TargetKind, u64_array
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts import MapDefinition
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import debian_objects, fixture_objects, fixture_path

ARRAY = 2
STRIPPED = "xdp_parse.clang-19.v3.el.g.strip-all.o"


def objects() -> dict[str, bytes]:
    """Objects that can be added to, by name."""
    found = [*fixture_objects(), *debian_objects()]
    return {name: data for name, data in found if name != STRIPPED}


def read(name: str) -> ElfObject:
    """A committed object."""
    return ElfObject.read(fixture_path(name))


def with_all(obj: ElfObject) -> ElfObject:
    """An object with one of each kind of addition."""
    return (
        obj.with_global("own_hits", bytes(80), ".bss", u64_array(10))
        .with_global("own_seed", b"\1" * 8, ".data.seed")
        .with_map(MapDefinition("own_table", ARRAY, 4, 80, 1), u64_array(10))
        .with_section(".notes.own", b"text")
        .with_relocatable()
    )


@pytest.mark.parametrize("name", objects())
def test_additions_change_nothing_that_was_there(name: str) -> None:
    """Code, symbols, maps and contents that an object had are as before."""
    obj = ElfObject.parse(objects()[name])
    new = ElfObject.parse(with_all(obj).to_bytes())
    assert np.array_equal(new.code.insns, obj.code.insns)
    assert new.symbols[: len(obj.symbols)] == obj.symbols
    for table, rows in obj.code.tables.items():
        assert np.array_equal(new.code.tables[table].insn, rows.insn)
    for before, after in zip(obj.sections, new.sections, strict=False):
        assert (before.name, before.type, before.flags) == (after.name, after.type, after.flags)
        if before.name not in (".BTF", ".bss", ".maps", "maps", ".symtab", ".strtab", ".shstrtab"):
            assert bytes(before.data) == bytes(after.data), before.name
    assert {"own_hits", "own_seed", "own_table"} <= {symbol.name for symbol in new.symbols}
    assert new.raw.to_bytes() == new.to_bytes()


@pytest.mark.parametrize(
    "name", ["globals.clang-19.v3.el.g.o", "globals.gcc.v3.eb.o", "alu32.clang-16.v3.el.g.o"]
)
def test_new_global_does_not_overlap(name: str) -> None:
    """A variable in a section that is there gets bytes of its own, aligned to 8."""
    obj = read(name)
    new = obj.with_global("hits", bytes(20), ".bss").with_global("more", bytes(8), ".bss")
    home = next(section for section in new.sections if section.name == ".bss")
    spans = sorted(
        (symbol.value, symbol.value + symbol.size)
        for symbol in new.symbols
        if symbol.section == home.index and symbol.size
    )
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    mine = next(symbol for symbol in new.symbols if symbol.name == "hits")
    assert (mine.value % 8, mine.size) == (0, 20)
    assert spans[-1][1] <= home.size


def test_new_global_is_in_the_types() -> None:
    """An object with types gets a VAR in the section's DATASEC."""
    btf = (
        read("globals.clang-19.v3.el.g.o").with_global("hits", bytes(80), ".bss", u64_array(10)).btf
    )
    assert btf is not None
    section = btf.type(btf.find(".bss", Kind.DATASEC)[0])
    assert isinstance(section, DataSec)
    var = btf.type(section.variables[-1].type_id)
    assert isinstance(var, Var)
    array = btf.type(var.type_id)
    assert isinstance(array, Array)
    assert (var.name, array.count, btf.size_of(var.type_id)) == ("hits", 10, 80)


@pytest.mark.parametrize(
    "name",
    [
        "xdp_count.clang-19.v3.el.g.o",
        "alu32.clang-16.v3.el.g.o",
        "legacy_maps.clang-19.v2.el.o",
        "legacy_maps.gcc.v3.el.o",
        "iproute2_maps.clang-19.v3.el.o",
    ],
)
def test_new_map_is_one_for_a_loader(name: str) -> None:
    """What a loader reads of the object's maps has the new one, and the others as before."""
    obj = read(name)
    before = kernel.map_specs(obj)
    new = obj.with_map(MapDefinition("table", ARRAY, 4, 80, 3, flags=1 << 10))
    after = {spec.name: spec for spec in kernel.map_specs(new)}
    added = after.pop("table")
    assert (added.type, added.key_size, added.value_size) == (ARRAY, 4, 80)
    assert (added.max_entries, added.flags) == (3, 1 << 10)
    assert [spec.name for spec in before] == list(after)
    for spec in before:
        assert (spec.type, spec.value_size) == (after[spec.name].type, after[spec.name].value_size)


def test_big_endian_object_stays_so() -> None:
    """What is added to a big-endian object is in its byte order."""
    obj = read("legacy_maps.clang-19.v2.eb.o").with_map(MapDefinition("table", ARRAY, 4, 80, 3))
    section = next(section for section in obj.sections if section.name == "maps")
    symbol = next(symbol for symbol in obj.symbols if symbol.name == "table")
    record = bytes(section.data)[symbol.value : symbol.value + 20]
    assert record == b"".join(word.to_bytes(4, "big") for word in (2, 4, 80, 3, 0))


def test_inserted_code_refers_to_what_was_added() -> None:
    """A section that had no relocations gets some when code there loads a new variable."""
    obj = with_all(read("alu32.clang-16.v3.el.g.o"))
    info = obj.programs[0]
    patches = PatchList(obj.code)
    node = patches.insert_before(int(patches.subprog_nodes(info.name)[0]), Body(isa.ld_imm64(0, 0)))
    patches.attach("reloc", node, obj.relocation(info.section, "own_hits"))
    done = ElfObject.parse(obj.with_code(patches.linearize()).to_bytes())
    linked = done.link(info.name)
    first = linked.relocations[0]
    assert (first.slot, first.target.kind, first.target.name) == (0, TargetKind.DATA, ".bss")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda obj: obj.with_global("xdp_count", bytes(8)), "symbol 'xdp_count' already"),
        (lambda obj: obj.with_global("x", bytes(8), ".text"), "not a section for data"),
        (lambda obj: obj.with_global("x", bytes(8), ".bssx"), "not a section for data"),
        (lambda obj: obj.with_global("x", b"", ".data"), "needs bytes"),
        (lambda obj: obj.with_global("x", b"\1", ".bss"), "zeros"),
        (lambda obj: obj.with_section("license", b"x"), "'license' already"),
    ],
)
def test_what_cannot_be_added_is_refused(make, what: str) -> None:  # type: ignore[no-untyped-def]
    """A name that is taken, a section that cannot be and data without bytes are refused."""
    obj = read("xdp_count.clang-19.v3.el.g.o")
    name = obj.programs[0].name
    with pytest.raises(OptionError, match=what.replace("xdp_count", name)):
        make(obj) if "xdp_count" not in what else obj.with_global(name, bytes(8))


def test_stripped_object_is_refused() -> None:
    """Without a symbol table nothing could refer to what is added."""
    obj = read(STRIPPED)
    for add in (
        lambda: obj.with_global("x", bytes(8)),
        lambda: obj.with_map(MapDefinition("x", ARRAY, 4, 8, 1)),
        obj.with_relocatable,
    ):
        with pytest.raises(UnsupportedError, match="symbol table"):
            add()
