"""What an object says that it holds."""

import pytest

from bpfpatch.elf import ElfObject, program_type
from support.inputs.bpfobjects import fixture_objects


def fixture(name):
    """A committed object."""
    return ElfObject.parse(dict(fixture_objects())[name])


def test_programs_are_the_global_functions_outside_of_text(build):
    """Functions of program sections are programs, those of .text and static ones are not."""
    build.code(".text", (0xB7,), (0x95,))
    build.code("xdp", (0xB7,), (0x95,), (0xB7,), (0x95,))
    build.code("tc", (0xB7,), (0x95,))
    build.symbols += [
        build.symbol("helper", ".text", 0, 16, 2, 1),
        build.symbol("second", "xdp", 16, 16, 2, 1),
        build.symbol("first", "xdp", 0, 16, 2, 1),
        build.symbol("static", "tc", 0, 16, 2, 0),
    ]
    found = ElfObject.parse(build.to_bytes()).programs
    assert [(info.name, info.section, info.start, info.end, info.type) for info in found] == [
        ("first", "xdp", 2, 4, "xdp"),
        ("second", "xdp", 4, 6, "xdp"),
    ]


def test_maps_are_btf_or_legacy():
    """Maps of .maps and of maps are told apart."""
    assert {info.kind for info in fixture("legacy_maps.clang-19.v2.el.o").maps} == {"legacy"}
    found = fixture("xdp_count.clang-19.v3.el.g.o").maps
    assert found
    assert {info.kind for info in found} == {"btf"}


def test_the_license_is_what_its_section_says(build):
    """The license ends at its NUL; an object may have none."""
    build.code("xdp", (0x95,))
    assert ElfObject.parse(build.to_bytes()).license is None
    build.sections.append(build.section("license", b"Dual MIT/GPL\0\0"))
    assert ElfObject.parse(build.to_bytes()).license == "Dual MIT/GPL"


def test_symbols_have_names_and_places(build):
    """A section symbol goes by its section's name."""
    build.code("xdp", (0x95,))
    build.symbols += [build.symbol("", "xdp", type=3), build.symbol("f", "xdp", 0, 8, 2, 1)]
    found = ElfObject.parse(build.to_bytes()).symbols
    assert [(sym.name, sym.section, sym.size) for sym in found[1:]] == [("xdp", 1, 0), ("f", 1, 8)]


def test_btf_is_there_or_not():
    """An object without .BTF has none, and neither records."""
    with_btf, without = (
        fixture("xdp_count.clang-19.v3.el.g.o"),
        fixture("xdp_count.clang-14.v1.el.o"),
    )
    assert with_btf.btf is not None
    assert with_btf.btf_ext is not None
    assert without.btf is None
    assert without.btf_ext is None


def test_equal_objects_are_equal():
    """Objects are equal when their files are, and can be kept in a set."""
    one, two = fixture("xdp_count.clang-19.v3.el.g.o"), fixture("xdp_count.clang-19.v3.el.g.o")
    assert one == two
    assert len({one, two, fixture("xdp_count.clang-14.v1.el.o")}) == 2
    assert one != "something else"


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        ("xdp", "xdp"),
        ("xdp.frags/devmap", "xdp"),
        ("?tc", "sched_cls"),
        ("tc/ingress", "sched_cls"),
        ("kprobe/do_unlinkat", "kprobe"),
        ("kprobe.multi/tcp_*", "kprobe"),
        ("uprobe.s//bin/sh:main", "kprobe"),
        ("tracepoint/syscalls/sys_enter_open", "tracepoint"),
        ("raw_tp.w/sched_switch", "raw_tracepoint_writable"),
        ("lirc_mode2", "lirc_mode2"),
        ("xdp_prog", "xdp"),
        ("cgroup/foo", ""),
        ("lsm.s/file_open", "lsm"),
        ("cgroup_skb/egress", "cgroup_skb"),
        ("cgroup/connect4", "cgroup_sock_addr"),
        ("cgroup/sock_release", "cgroup_sock"),
        ("struct_ops/init", "struct_ops"),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_a_section_s_name_tells_the_program_s_type(section, kind):
    """The type is the one that the one table of section names has, by bpftool's name."""
    assert program_type(section) == kind
