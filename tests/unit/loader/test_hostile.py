"""Broken objects: what reads them before the kernel does raises errors of our own, or nothing."""

from __future__ import annotations

import random

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.kernel import map_specs, prepare_btf
from bpfpatch.loader.structops import struct_ops_places
from support.generators.fuzzing import mutate
from support.inputs.bpfobjects import fixture_path

CASES = 150
LEAST = 20
OBJECTS = ["map_in_map", "kconfig", "ksyms", "globals", "struct_ops", "legacy_maps"]
PARTS = (".BTF", ".symtab", ".maps", ".rel.maps", "maps", ".strtab")


@pytest.mark.parametrize("name", OBJECTS)
def test_mutated_objects_raise_nothing_else(name: str) -> None:
    """Maps, types and tables of a mutated object are read, or refused with an error of ours."""
    data = fixture_path(f"{name}.clang-19.v3.el.g.o").read_bytes()
    parts = [part for part in ElfObject.parse(data).sections if part.name in PARTS and part.size]
    n_read = n_refused = 0
    for number in range(CASES):
        rng = random.Random(number)
        part = rng.choice(parts)
        inside = bytearray(mutate(rng, bytes(part.data)))[: part.size].ljust(part.size, b"\0")
        broken = data[: part.byte_off] + bytes(inside) + data[part.byte_off + part.size :]
        for read in (map_specs, prepare_btf, struct_ops_places):
            try:
                read(ElfObject.parse(broken))
            except BpfPatchError:
                n_refused += 1
            else:
                n_read += 1
    assert n_read + n_refused == 3 * CASES
    assert min(n_read, n_refused) >= LEAST


def test_a_section_beyond_a_maps_limit_is_refused() -> None:
    """A .bss of many gigabytes is refused before anybody makes room for it."""
    data = bytearray(fixture_path("kconfig.clang-19.v3.el.g.o").read_bytes())
    obj = ElfObject.parse(bytes(data))
    index = obj.raw.find(".bss")
    headers = int.from_bytes(data[40:48], "little")
    at = headers + 64 * index + 32
    data[at : at + 8] = (1 << 60).to_bytes(8, "little")
    with pytest.raises(BpfPatchError, match="at most"):
        map_specs(ElfObject.parse(bytes(data)))
