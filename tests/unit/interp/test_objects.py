"""Programs of objects: their maps, global data, tail calls and variables of the kernel."""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.errors import LinkError, UnsupportedError
from bpfpatch.interp import Machine, Xdp
from bpfpatch.passes import Sprinkle
from bpfpatch.patch import PatchList
from support.inputs.bpfobjects import fixture_path
from support.inputs.packets import SAMPLES

BALANCER = "xdp_balancer.clang-19.v3.el.g.o"


def test_maps_and_data_of_an_object_are_made() -> None:
    """A machine for an object has the object's maps by name, with the sizes of its types."""
    machine = Machine.of_object(ElfObject.read(fixture_path(BALANCER)))
    kinds = {name: found.kind for name, found in machine.maps.items()}
    names = {info.name for info in ElfObject.read(fixture_path(BALANCER)).maps}
    assert names <= set(kinds)


def test_maps_keep_their_contents_from_run_to_run() -> None:
    """A program that counts packets in a map goes on counting."""
    obj = ElfObject.read(fixture_path("xdp_count.clang-19.v3.el.g.o"))
    machine = Machine.of_object(obj)
    seen = []
    for _ in range(2):
        machine.run(Xdp(SAMPLES["udp_dns"]))
        seen.append({name: found.contents() for name, found in machine.maps.items()})
    assert seen[0] != seen[1]


def test_patched_program_does_what_the_original_did() -> None:
    """A linked program can be patched and run on the object's maps; it behaves as before."""
    obj = ElfObject.read(fixture_path(BALANCER))
    linked = obj.link(obj.programs[0].name)
    patches = PatchList(linked.program)
    Sprinkle(every=1).run(patches)
    patched = linked.with_code(patches.linearize())
    before, after = Machine.of_linked(obj, linked), Machine.of_linked(obj, patched)
    for packet in SAMPLES.values():
        wanted, got = before.run(Xdp(packet)), after.run(Xdp(packet))
        assert (got.r0, got.packet, got.trace) == (wanted.r0, wanted.packet, wanted.trace)
        assert got.n_insns > wanted.n_insns
    contents = [{k: m.contents() for k, m in machine.maps.items()} for machine in (before, after)]
    assert contents[0] == contents[1]


def test_kernel_variables_can_be_given() -> None:
    """Configuration values are zeros unless they are given."""
    obj = ElfObject.read(fixture_path("kconfig.clang-19.v3.el.g.o"))
    name = obj.programs[0].name
    version = {"LINUX_KERNEL_VERSION": 0x061200}
    machine = Machine.of_object(obj, name, externs=version)
    assert machine.image.program is not None


def test_a_program_must_be_named_where_there_are_several() -> None:
    """Without a name an object must have one program only."""
    obj = ElfObject.read(fixture_path("network_hooks.clang-19.v4.eb.g.o"))
    with pytest.raises(LinkError, match="name one of"):
        Machine.of_object(obj)


def test_maps_without_types_are_refused() -> None:
    """Maps in .maps cannot be made where the object has no BTF."""
    obj = ElfObject.read(fixture_path("xdp_count.clang-14.v1.el.o"))
    with pytest.raises(UnsupportedError, match="compile with -g"):
        Machine.of_object(obj)


def test_big_endian_object_runs() -> None:
    """An object for a big-endian machine runs on one."""
    obj = ElfObject.read(fixture_path("atomics.clang-16.v2.eb.g.o"))
    name = obj.programs[0].name
    assert Machine.of_object(obj, name).byteorder == "big"
