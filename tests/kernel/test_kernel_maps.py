"""Maps in the kernel: entries, kinds, and what an object's maps hold once it is open."""

from __future__ import annotations

import struct

import pytest

from bpfpatch import asm, kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import loaded, maps_of, need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def u32(value: int) -> bytes:
    """Four bytes."""
    return struct.pack("=I", value)


def test_entries_come_and_go() -> None:
    """A key's value can be set, read, listed and taken out."""
    with kernel.Map.create("hash", 4, 8, 10, name="flows") as flows:
        assert flows.get(u32(1)) is None
        flows.update(u32(1), bytes(8))
        flows.update(u32(2), b"12345678")
        assert flows.dump() == {u32(1): bytes(8), u32(2): b"12345678"}
        assert flows.delete(u32(1))
        assert not flows.delete(u32(1))
        assert list(flows.keys()) == [u32(2)]
        info = flows.info()
    assert (info.name, info.type, info.key_size, info.value_size, info.max_entries) == (
        "flows",
        kernel.MapType.HASH,
        4,
        8,
        10,
    )


def test_sizes_are_checked() -> None:
    """A key or value of another size never reaches the kernel, which would read beyond it."""
    with kernel.Map.create("array", 4, 8, 2) as cells:
        with pytest.raises(OptionError, match="keys of 4 bytes, but 2 were given"):
            cells.get(b"ab")
        with pytest.raises(OptionError, match="values of 8 bytes, but 1 were given"):
            cells.update(u32(0), b"a")


def test_a_per_cpu_value_has_a_part_for_each_cpu() -> None:
    """One CPU's value goes to all; reading gives all parts."""
    with kernel.Map.create("percpu_array", 4, 6, 1) as counters:
        counters.update(u32(0), b"abcdef")
        value = counters.get(u32(0))
        assert value is not None
        assert counters.per_cpu(value) == (b"abcdef",) * kernel.possible_cpus()


def test_a_frozen_map_stays() -> None:
    """After freezing nobody outside changes it."""
    with kernel.Map.create("array") as cell:
        cell.freeze()
        with pytest.raises(kernel.KernelError, match="EPERM"):
            cell.update(u32(0), u32(1))


def test_a_map_is_found_by_its_number() -> None:
    """An id leads to the same map."""
    with kernel.Map.create("array", name="cell") as cell:
        cell.update(u32(0), u32(9))
        with kernel.Map.from_id(cell.info().id) as again:
            assert again.get(u32(0)) == u32(9)
            assert again.name == "cell"
    with pytest.raises(kernel.KernelError, match="ENOENT"):
        kernel.Map.from_id(0x7FFFFFFF)


def test_queues_have_no_keys() -> None:
    """A queue's head is read without a key."""
    with kernel.Map.create("queue", 0, 4, 4) as queue:
        queue.update(b"", u32(5))
        assert queue.get(b"") == u32(5)


def test_an_impossible_map_is_refused_with_its_sizes() -> None:
    """The error says which map."""
    with pytest.raises(kernel.KernelError, match=r"hash map 'x' \(0-byte keys.*EINVAL"):
        kernel.Map.create("hash", 0, 4, 1, name="x")


def test_maps_of_maps_hold_their_first_values() -> None:
    """Entries that the source gives are there after opening."""
    with kernel.open_object(fixture_path("map_in_map.clang-19.v3.el.g.o")) as opened:
        outer = opened.maps["outer"]
        ids = [outer.get(u32(index)) for index in range(2)]
        want = [u32(opened.maps[name].info().id) for name in ("inner_a", "inner_b")]
        assert ids == want


def test_program_arrays_hold_their_programs() -> None:
    """A program goes into the program arrays that name it when it is loaded."""
    with kernel.open_object(fixture_path("tail_calls.clang-19.v3.el.g.o")) as opened:
        stages = opened.maps["stages"].dump()
        ids = {prog.info().id for prog in opened.programs.values()}
    assert stages
    assert {struct.unpack("=I", value)[0] for value in stages.values()} <= ids


def test_data_sections_hold_what_bpftool_puts_there() -> None:
    """Entry 0 of each data section's map is the one that bpftool's loading gives."""
    path = fixture_path("globals.clang-19.v3.el.g.o")
    obj = ElfObject.parse(path.read_bytes())
    sections = {section.name: bytes(section.data) for section in obj.sections}
    with kernel.open_object(path) as opened, loaded(path) as theirs:
        names = {maps.info().name for maps in opened.maps.values()}
        for name in (".data", ".rodata", ".data.custom", ".rodata.str1.1"):
            assert opened.maps[name].get(u32(0)) == sections[name]
        of_bpftool = set()
        for pin in theirs.pins.values():
            of_bpftool |= set(maps_of(pin))
    assert of_bpftool <= names


def test_configuration_values_can_be_given() -> None:
    """A given value comes before the kernel's own, which is read where none is given."""
    path = fixture_path("kconfig.clang-19.v3.el.g.o")
    packet = bytes(64)
    with kernel.open_object(path, kconfig={"CONFIG_HZ": 7, "CONFIG_BPF_SYSCALL": "y"}) as opened:
        prog = opened.programs["read_config"]
        with_given = prog.test_run(packet).retval
    hz = kernel.kernel_config().get("CONFIG_HZ")
    if hz is None:
        pytest.skip("not on this kernel: it does not tell its configuration")
    with kernel.open_object(path) as opened:
        with_own = opened.programs["read_config"].test_run(packet).retval
    assert with_own - with_given == int(hz) - 7


def test_programs_reach_maps_given_by_hand() -> None:
    """A linked program can be loaded with maps of one's own."""
    obj = ElfObject.parse(fixture_path("redirects.clang-19.v3.el.g.o").read_bytes())
    with kernel.open_object(obj, []) as opened:
        needs = kernel.Needs(opened.maps, btf=obj.btf)
        assert opened.btf is not None
        name = obj.programs[0].name
        with kernel.load(obj.link(name), needs=needs, btf=opened.btf) as prog:
            used = set(prog.info().map_ids.tolist())
        assert used <= {made.info().id for made in opened.maps.values()}
        assert used


def test_raw_map_descriptors_work() -> None:
    """A flat program may name a map's descriptor itself."""
    with kernel.Map.create("array", 4, 8, 1) as cell:
        text = f"""
            r1 = 0; *(u32 *)(r10 - 4) = r1
            ld_pseudo r1, 0x1, {cell.fd}
            r2 = r10; r2 += -4; call 1
            if r0 == 0 goto +1
            *(u64 *)(r0 + 0) = 77
            r0 = 0; exit
        """
        with kernel.load(asm.assemble(text)) as prog:
            prog.test_run(bytes(64))
        assert cell.get(u32(0)) == struct.pack("=Q", 77)


def test_maps_of_an_object_have_libbpfs_names() -> None:
    """A definition's own name as far as it fits; a data section's with the object's before it."""
    obj = ElfObject.read(str(fixture_path("globals.clang-19.v3.el.g.o")))
    with kernel.open_object(obj, name="globals_of_mine") as opened:
        names = {name: made.info().name for name, made in opened.maps.items()}
    assert (names[".bss"], names[".data.custom"]) == ("globals_.bss", ".data.custom")
    obj = ElfObject.read(str(fixture_path("map_in_map.clang-19.v3.el.g.o")))
    with kernel.open_object(obj) as opened:
        assert opened.maps["inner_a"].info().name == "inner_a"
