"""The maps that fixtures ask for; expected values are those of their sources."""

import mmap

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.errors import UnsupportedError
from bpfpatch.kernel import MapFlag, MapType, map_specs
from bpfpatch.loader.mapspec import kernel_name
from support.inputs.bpfobjects import fixture_path


def specs(fixture, **options):
    """A fixture's maps by name."""
    obj = ElfObject.parse(fixture_path(fixture).read_bytes())
    return {spec.name: spec for spec in map_specs(obj, "object_name", **options)}


def test_definitions_are_read_from_types():
    """Kind, sizes and entries are those that the source declares."""
    found = specs("map_in_map.clang-19.v3.el.g.o")
    inner = found["inner_a"]
    assert (inner.type, inner.key_size, inner.value_size, inner.max_entries) == (
        MapType.ARRAY,
        4,
        4,
        2,
    )
    assert inner.key_type_id
    assert inner.value_type_id


def test_a_map_of_maps_knows_what_it_holds():
    """Its initial values come from the section's relocations, its inner map from the type."""
    found = specs("map_in_map.clang-19.v3.el.g.o")
    assert found["outer"].values == ((0, "inner_a"), (1, "inner_b"))
    assert found["outer"].inner.type is MapType.ARRAY
    by_hash = found["by_hash"]
    assert (by_hash.inner.type, by_hash.inner.key_size, by_hash.inner.max_entries) == (
        MapType.HASH,
        8,
        16,
    )


def test_data_sections_are_maps():
    """Each has one entry, its section's content; constants are read-only and frozen."""
    found = specs("globals.clang-19.v3.el.g.o")
    assert (found[".bss"].value_size, found[".bss"].content) == (0x88, b"")
    assert found[".data"].flags == MapFlag.MMAPABLE
    const = found[".rodata"]
    assert const.flags == MapFlag.MMAPABLE | MapFlag.RDONLY_PROG
    assert const.is_frozen
    assert {".data.custom", ".rodata.fixed", ".rodata.str1.1"} < set(found)
    assert all(spec.max_entries == 1 for spec in found.values())


@pytest.mark.parametrize("fixture", ["legacy_maps.clang-19.v3.el.g.o", "legacy_maps.gcc.v3.el.o"])
def test_legacy_records_are_read(fixture):
    """Maps in section ``maps`` are records of words."""
    found = specs(fixture)
    assert found
    assert all(spec.max_entries and spec.key_size for spec in found.values())


def test_longer_legacy_records_are_read():
    """Tc's own record starts with the same five words."""
    found = specs("iproute2_maps.clang-19.v3.el.g.o")
    assert found["jumps"].type is MapType.PROG_ARRAY
    assert (found["jumps"].max_entries, found["marks"].max_entries) == (2, 16)


def test_ring_buffers_have_a_size_that_the_kernel_takes():
    """A ring buffer's size is a power of two times the page's."""
    found = specs("ringbuf.clang-19.v3.el.g.o")
    pages, rest = divmod(found["events"].max_entries, mmap.PAGESIZE)
    assert rest == 0
    assert pages.bit_count() == 1


def test_maps_without_types_are_refused():
    """Without .BTF nobody can know what .maps defines, and the error says so."""
    with pytest.raises(UnsupportedError, match=r"defines words.*compile with -g"):
        specs("imm64.clang-14.v2.el.o")


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (".rodata", "my_objec.rodata"),
        (".bss", "my_objec.bss"),
        (".kconfig", "my_obje.kconfig"),
        (".rodata.abracadabra", ".rodata.abracad"),
    ],
)
def test_names_in_the_kernel_are_libbpfs(section, name):
    """Names are made as libbpf's internal_map_name() describes it."""
    assert kernel_name(section, "my_object_name") == name
