"""The maps that an object asks for, before there are any.

Source: libbpf v1.1, src/libbpf.c, fill_map_from_def(), internal_map_name() and
bpf_object__init_internal_map().
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from bpfpatch.bpf.syscall import NAME_LEN
from bpfpatch.btf import Btf, Kind
from bpfpatch.elf import ElfObject, Section
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.kinds import MapFlag, MapType
from bpfpatch.facts.maps import MAX_VALUE, MapDefinition

from .kconfig import SECTION as KCONFIG
from .kconfig import kconfig_content

_WORD: Final = 4
_ALLOC: Final = 2
_EXEC: Final = 4

#: Kinds whose keys and values the kernel wants no types for.
#: Source: libbpf v1.1, src/libbpf.c, bpf_object__create_map().
WITHOUT_BTF: Final = frozenset(
    {
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.STACK_TRACE,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP,
        MapType.DEVMAP_HASH,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.SOCKMAP,
        MapType.SOCKHASH,
        MapType.QUEUE,
        MapType.STACK,
        MapType.PROG_ARRAY,
    }
)


def map_specs(
    obj: ElfObject, name: str = "", kconfig: Mapping[str, str | int] | None = None
) -> tuple[MapDefinition, ...]:
    """All maps that an object asks for, in the order that libbpf makes them.

    Args:
        obj: the object.
        name: its own name, the start of its data sections' names in the kernel.
        kconfig: see `kconfig_content`.

    Raises:
        FormatError: a map's definition is broken.
        UnsupportedError: it has what cannot be loaded.
        KernelError: a configuration value is not known.
    """
    return (
        *map(_made, map_definitions(obj)),
        *_data(obj, name),
        *_kconfig(obj, name, kconfig),
    )


def weak_names(obj: ElfObject) -> frozenset[str]:
    """Externs that may be absent."""
    weak = 2
    return frozenset(
        symbol.name for symbol in obj.symbols if symbol.section == 0 and symbol.bind == weak
    )


def _made(found: MapDefinition) -> MapDefinition:
    """What the kernel is asked for."""
    entries = found.max_entries
    if found.type in (MapType.RINGBUF, MapType.USER_RINGBUF):
        entries = _ring_size(entries)
    inner = None if found.inner is None else _made(found.inner)
    return replace(found, max_entries=entries, inner=inner)


def _ring_size(size: int) -> int:
    """A ring buffer's size: a power of two times the page's size."""
    page = mmap.PAGESIZE
    if size % page == 0 and (size // page).bit_count() == 1:
        return size
    out = page
    while size and out <= size and out < 1 << 31:
        out *= 2
    return out if size else 0


# Data sections: arrays of one entry.


def _data(obj: ElfObject, name: str) -> Iterator[MapDefinition]:
    for section in obj.sections:
        base = "." + section.name.split(".")[1] if section.name.startswith(".") else ""
        if base not in (".data", ".rodata", ".bss") or not section.size:
            continue
        if not section.flags & _ALLOC or section.flags & _EXEC:
            continue
        if section.size > MAX_VALUE:
            raise UnsupportedError(
                f"section {section.name} has {section.size} bytes, "
                f"a map's value at most {MAX_VALUE}"
            )
        is_const = base == ".rodata"
        yield MapDefinition(
            section.name,
            MapType.ARRAY,
            _WORD,
            section.size,
            1,
            MapFlag.MMAPABLE | (MapFlag.RDONLY_PROG if is_const else 0),
            value_type_id=_data_type(obj.btf, section),
            content=bytes(section.data) if section.has_bytes else b"",
            is_frozen=is_const,
            kernel_name=kernel_name(section.name, name),
        )


def _data_type(btf: Btf | None, section: Section) -> int:
    if btf is None:
        return 0
    return btf.find_one(section.name, Kind.DATASEC) or 0


def kernel_name(section: str, name: str) -> str:
    """What the kernel calls a data section's map: the object's name and the section's.

    Of a section with two dots the section's name alone.
    """
    if "." in section[1:]:
        return section[:NAME_LEN]
    room = NAME_LEN - min(max(7, len(section)), NAME_LEN)
    return (name[:room] + section)[:NAME_LEN]


def _kconfig(
    obj: ElfObject, name: str, given: Mapping[str, str | int] | None
) -> Iterator[MapDefinition]:
    btf = obj.btf
    if btf is None or not btf.find(KCONFIG, Kind.DATASEC):
        return
    content = kconfig_content(btf, weak_names(obj), given)
    yield MapDefinition(
        KCONFIG,
        MapType.ARRAY,
        _WORD,
        len(content),
        1,
        MapFlag.MMAPABLE | MapFlag.RDONLY_PROG,
        value_type_id=btf.find_one(KCONFIG, Kind.DATASEC) or 0,
        content=content,
        is_frozen=True,
        kernel_name=kernel_name(KCONFIG, name),
    )
