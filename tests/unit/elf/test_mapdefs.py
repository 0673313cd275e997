"""The maps that objects define; what is expected stands in tests/fixtures/src."""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import MapDefinition, map_definitions
from bpfpatch.errors import UnsupportedError
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
