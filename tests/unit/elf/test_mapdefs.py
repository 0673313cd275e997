"""The maps that objects define; what is expected stands in tests/fixtures/src."""

from __future__ import annotations

import pytest

from bpfpatch.btf import (
    Array,
    BtfBuilder,
    Enum64,
    Enumerator,
    Int,
    IntEncoding,
    Member,
    Ptr,
    Struct,
)
from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import MapDefinition, map_definitions, read_definition
from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.facts.kinds import MapType
from support.inputs.bpfobjects import fixture_path


def definitions(name: str) -> dict[str, MapDefinition]:
    """An object's maps by name."""
    obj = ElfObject.read(str(fixture_path(name)))
    return {found.name: found for found in map_definitions(obj)}


@pytest.mark.parametrize("name", ["el.o", "eb.o"])
def test_legacy_maps_are_records_of_words(name: str) -> None:
    """In the object's byte order."""
    found = definitions(f"legacy_maps.clang-19.v2.{name}")
    hits, totals = found["hits"], found["totals"]
    assert (hits.type, hits.key_size, hits.value_size) == (MapType.HASH, 4, 8)
    assert (hits.max_entries, totals.max_entries) == (100, 2)
    assert totals.type is MapType.ARRAY


def test_a_map_of_maps_says_what_it_holds() -> None:
    """And which maps it starts with."""
    found = definitions("map_in_map.clang-19.v3.el.g.o")
    outer, by_hash = found["outer"], found["by_hash"]
    assert (outer.type, outer.key_size, outer.value_size) == (MapType.ARRAY_OF_MAPS, 4, 4)
    assert outer.values == ((0, "inner_a"), (1, "inner_b"))
    assert outer.inner is not None
    assert (outer.inner.name, outer.inner.max_entries) == ("outer.inner", 2)
    assert by_hash.inner is not None
    assert (by_hash.inner.type, by_hash.inner.key_size) == (MapType.HASH, 8)
    assert by_hash.values == ()


def test_an_array_of_programs_starts_with_programs() -> None:
    """At the indices that the source names."""
    stages = definitions("tail_calls.clang-19.v3.el.g.o")["stages"]
    assert stages.type is MapType.PROG_ARRAY
    assert stages.inner is None
    assert stages.values == ((0, "stage_one"), (1, "stage_two"))


def test_without_types_a_definition_says_nothing() -> None:
    """The error names the maps, and the way out."""
    with pytest.raises(UnsupportedError, match=r"inner_a.*compile with -g"):
        definitions("map_in_map.clang-16.v1.eb.o")


def _types(number: int = 1) -> tuple[BtfBuilder, int, int]:
    """(types, the id of the definition, that of the pointer that encodes a number of entries)."""
    types = BtfBuilder()
    word = types.add(Int("int", 4, 32, IntEncoding.SIGNED))
    entries = types.add(Ptr(types.add(Array(word, word, number))))
    return types, types.next_id, entries


def test_a_map_of_maps_that_holds_itself() -> None:
    """A definition that refers to itself has an end: an inner map holds no maps."""
    types, definition, entries = _types()
    values = definition + 2
    types.add(Struct("map", 16, (Member("type", entries, 0), Member("values", values, 64))))
    pointer = types.add(Ptr(definition))
    types.add(Array(pointer, 1, 0))
    with pytest.raises(UnsupportedError, match=r"map 'm\.inner' is an inner map"):
        read_definition(types.build(), "m", definition)


@pytest.mark.parametrize("number", [-1, 1 << 32, 1 << 63])
def test_a_number_that_no_map_can_have(number: int) -> None:
    """Numbers of a definition have 32 bits and no sign."""
    types, definition, entries = _types()
    enum = types.add(Enum64("n", 8, (Enumerator("n", number),), is_signed=number < 0))
    types.add(Struct("map", 16, (Member("type", entries, 0), Member("max_entries", enum, 64))))
    with pytest.raises(FormatError, match=f"map 'm' has {number} for max_entries"):
        read_definition(types.build(), "m", definition + 1)


def test_a_symbol_without_a_definition() -> None:
    """A symbol in .maps that no variable in .BTF describes is named."""
    data = fixture_path("xdp_count.clang-19.v3.el.g.o").read_bytes()
    name = next(iter(definitions("xdp_count.clang-19.v3.el.g.o")))
    obj = ElfObject.parse(data)
    strings = next(one for one in obj.sections if one.name == ".strtab")
    at = data.index(f"\0{name}\0".encode(), strings.byte_off) + 1
    broken = ElfObject.parse(data[:at] + b"?" + data[at + 1 :])
    with pytest.raises(FormatError, match=f"symbol '[?]{name[1:]}', and .BTF no variable"):
        list(map_definitions(broken))


@pytest.mark.parametrize(
    ("new", "message"), [(b"", "has no name"), (b"hits", "two maps have the name 'hits'")]
)
def test_each_map_has_a_name_of_its_own(new: bytes, message: str) -> None:
    """Maps are found by their names, so that one without, or two of one name, are refused."""
    data = bytearray(fixture_path("legacy_maps.gcc.v3.el.o").read_bytes())
    first, second = list(definitions("legacy_maps.gcc.v3.el.o"))[:2]
    assert (first, second) == ("hits", "totals")
    at = data.index(f"\0{second}\0".encode()) + 1
    data[at : at + len(new) + 1] = new + b"\0"
    with pytest.raises(FormatError, match=message):
        list(map_definitions(ElfObject.parse(bytes(data))))
