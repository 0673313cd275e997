"""What the UAPI and libbpf promise, as we have it, against this machine's kernel and libbpf."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import pytest

from bpfpatch.btf import Btf, Enum, Kind, Struct
from bpfpatch.facts.contexts import CONTEXTS
from bpfpatch.facts.kinds import AttachType, MapType, ProgFlag, ProgType
from bpfpatch.facts.layouts import Layouts
from bpfpatch.facts.sections import section_kind
from bpfpatch.linux.passes.ctx.registry import contexts

LIBBPF = (
    "/usr/lib/x86_64-linux-gnu/libbpf.so.1",
    "/usr/lib64/libbpf.so.1",
    "/usr/sbin/bpftool",
)
VMLINUX = Path("/sys/kernel/btf/vmlinux")
R_RELATIVE = 8
ATTACHABLE, ATTACH_BTF, SLEEPABLE, FRAGS = 3, 4, 8, 16
LEAST_ROWS = 70


class SectionDef(NamedTuple):
    """A row of libbpf's table."""

    section: str
    prog_type: int
    attach_type: int
    flags: int


def section_defs(path: str) -> Iterator[SectionDef]:
    """The rows of ``section_defs`` in a binary that has libbpf in it.

    A row starts with a pointer to the section's name, which a relocation fills. "socket" comes
    first and "sk_reuseport/migrate" second, which also tells how long a row is.
    """
    elffile = pytest.importorskip("elftools.elf.elffile")
    data = Path(path).read_bytes()
    with Path(path).open("rb") as file:
        elf = elffile.ELFFile(file)
        loaded = [one for one in elf.iter_segments() if one["p_type"] == "PT_LOAD"]
        table = elf.get_section_by_name(".rela.dyn")
        pointers = {
            one["r_offset"]: one["r_addend"]
            for one in table.iter_relocations()
            if one["r_info_type"] == R_RELATIVE
        }

    def file_off(address: int) -> int:
        for one in loaded:
            if 0 <= address - one["p_vaddr"] < one["p_filesz"]:
                return int(address - one["p_vaddr"] + one["p_offset"])
        return -1

    def text(address: int) -> str:
        start = file_off(pointers.get(address, 0))
        return data[start : data.index(b"\0", start)].decode("latin-1") if start > 0 else ""

    by_name = {text(at): at for at in pointers if text(at) in ("socket", "sk_reuseport/migrate")}
    at = by_name["socket"]
    stride = by_name["sk_reuseport/migrate"] - at
    while text(at).isprintable() and text(at):
        yield SectionDef(text(at), *struct.unpack_from("<IIq", data, file_off(at) + 8))
        at += stride


@pytest.fixture(scope="module")
def libbpf() -> list[SectionDef]:
    """The rows of the libbpf that is installed."""
    for path in LIBBPF:
        if Path(path).exists():
            return list(section_defs(path))
    pytest.skip("not installed: libbpf.so.1 or bpftool")


def test_section_names_are_libbpfs(libbpf: list[SectionDef]) -> None:
    """Every name in libbpf's own table means here what it means there."""
    assert len(libbpf) >= LEAST_ROWS
    for row in libbpf:
        base = row.section.removesuffix("+")
        names = [base, f"{base}/x"] if row.section != base else [base]
        for name in names:
            kind = section_kind(name)
            assert kind.type == row.prog_type, name
            assert kind.needs_attach_btf == bool(row.flags & ATTACH_BTF), name
            assert bool(kind.flags & ProgFlag.SLEEPABLE) == bool(row.flags & SLEEPABLE), name
            assert bool(kind.flags & ProgFlag.XDP_HAS_FRAGS) == bool(row.flags & FRAGS), name
            assert kind.attach_type == row.attach_type, name


@pytest.fixture(scope="module")
def vmlinux() -> Btf:
    """The running kernel's types, read from its file."""
    if not VMLINUX.exists():
        pytest.skip("not on this kernel: it has no BTF")
    return Btf.parse(VMLINUX.read_bytes())


@pytest.mark.parametrize(
    ("ours", "name", "prefix"),
    [
        (ProgType, "bpf_prog_type", "BPF_PROG_TYPE_"),
        (MapType, "bpf_map_type", "BPF_MAP_TYPE_"),
        (AttachType, "bpf_attach_type", "BPF_"),
    ],
)
def test_kinds_are_the_kernels(vmlinux: Btf, ours: type[IntEnum], name: str, prefix: str) -> None:
    """Every kind that the kernel has is here by its number, and no other."""
    found = vmlinux.type(vmlinux.find_one(name, Kind.ENUM))
    assert isinstance(found, Enum)
    theirs = {one.name.removeprefix(prefix): one.value for one in found.values}
    by_number = {number: one for one, number in theirs.items() if "MAX" not in one}
    assert by_number.keys() == {kind.value for kind in ours}
    mine = {one: kind.value for one, kind in ours.__members__.items()}
    assert {one: theirs.get(one) for one in mine} == mine


NOT_IN_BTF = {"padding"}
"""What the kernel treats as a field, and has no name in its struct."""
OF_PROCESSOR = {"bpf_perf_event_data"}
"""Contexts whose places depend on the processor, and are looked up."""
LEAST_FIELDS = 200


def test_contexts_are_the_kernels(vmlinux: Btf) -> None:
    """Every field of every context sits where the kernel's own types have it."""
    layouts = Layouts(vmlinux)
    n_compared = 0
    for one in contexts().values():
        struct = one.uapi.removeprefix("struct ")
        for field in one.fields if struct not in OF_PROCESSOR else ():
            if field.name in NOT_IN_BTF:
                continue
            place = layouts.place(f"{struct}.{field.name}")
            assert (place.byte_off, place.size) == (field.byte_off, field.size), field.name
            n_compared += 1
    assert n_compared >= LEAST_FIELDS


@pytest.mark.parametrize("struct", CONTEXTS)
def test_layouts_of_contexts_are_whole(vmlinux: Btf, struct: str) -> None:
    """No field of theirs is missing, and the size is the kernel's."""
    ours, size = CONTEXTS[struct]
    layouts, found = Layouts(vmlinux), vmlinux.type(vmlinux.find_one(struct, Kind.STRUCT))
    assert isinstance(found, Struct)
    assert found.size == size
    named = {one.name for one in found.members if one.name}
    assert named <= ours.keys()
    for name, place in ours.items():
        there = layouts.place(f"{struct}.{name}")
        assert (there.byte_off, there.size) == place
