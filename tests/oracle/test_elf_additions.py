"""Stock libbpf (bpftool) creates the maps and variables that we add, and code can use them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject, u64_array
from bpfpatch.facts import MapDefinition
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_objects, xdp_tools_objects
from support.machine.tools import BpftoolError, loaded, maps_of, need_bpf

pytestmark = pytest.mark.kernel
PERCPU_ARRAY = 6


def objects() -> dict[str, bytes]:
    """Objects that this machine may load, by name."""
    found = [*fixture_objects(), *xdp_tools_objects()]
    return {name: data for name, data in found if name.endswith(("v3.el.g.o", "v2.el.o", "bpf.o"))}


def with_counters(data: bytes) -> ElfObject:
    """An object of which each program refers to new variables and a new map."""
    obj = (
        ElfObject.parse(data)
        .with_global("own_hits", bytes(80), ".bss", u64_array(10))
        .with_global("own_more", bytes(16), ".data.own", u64_array(2))
        .with_map(MapDefinition("own_table", PERCPU_ARRAY, 4, 80, 1), u64_array(10))
        .with_relocatable()
    )
    patches = PatchList(obj.code)
    for info in obj.programs:
        first = int(patches.subprog_nodes(info.name)[0])
        for symbol in ("own_hits", "own_more", "own_table"):
            node = patches.insert_before(first, Body(isa.ld_imm64(0, 0)))
            patches.attach("reloc", node, obj.relocation(info.section, symbol))
    return obj.with_code(patches.linearize())


@pytest.mark.parametrize("name", objects())
def test_bpftool_makes_what_was_added(name: str, tmp_path: Path) -> None:
    """An object with new variables and a map loads if it did, and has the maps for them."""
    need_bpf()
    data = objects()[name]
    original, patched = tmp_path / "original.o", tmp_path / "patched.o"
    original.write_bytes(data)
    try:
        with loaded(original):
            pass
    except BpftoolError as error:
        pytest.skip(f"bpftool does not load the original: {str(error)[:60]}")
    with_counters(data).write(patched)
    with loaded(patched) as what:
        assert {"_data_own", "own_table"} <= set(what.maps)
        for pin in what.pins.values():
            found = maps_of(pin)
            assert len(found[".data.own"]) == 1
            assert "own_table" in found
