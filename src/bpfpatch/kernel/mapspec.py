"""The maps that an object asks for, before there are any.

Source: libbpf v1.1, src/libbpf.c, parse_btf_map_def(), fill_map_from_def(),
internal_map_name(), bpf_object__init_internal_map() and
bpf_object__collect_map_relos(); libbpf v0.8, bpf_object__init_user_maps().
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bpfpatch.btf import Array, Btf, DataSec, Enum, Enum64, FuncProto, Kind, Ptr, Struct, Var
from bpfpatch.elf import ElfObject, Section
from bpfpatch.elf.contents import BTF_MAPS
from bpfpatch.elf.symtab import read_relocations, read_symbols
from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.facts.kinds import MapFlag, MapType

from .kconfig import SECTION as KCONFIG
from .kconfig import kconfig_content
from .syscall import NAME_LEN

_POINTER: Final = 8
_MAX_SIZE: Final = (1 << 31) - 1
_WORD: Final = 4
_LEGACY_WORDS: Final = 5
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


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A map as an object describes it.

    Attributes:
        name: what the code calls it; of a data section the section's name.
        kernel_name: what the kernel shows, up to 15 characters.
        type: its kind.
        key_size: bytes.
        value_size: bytes.
        max_entries: how many fit.
        flags: BPF_F_* bits.
        extra: map_extra.
        numa_node: where, with the flag for it.
        key_type_id: in the object's types, or 0.
        value_type_id: the same.
        inner: what a map of maps holds.
        values: (index, name) of the maps or programs that it starts with.
        content: what entry 0 of a data section starts with; zeros follow.
        is_frozen: whether nobody may change it from outside after that.
    """

    name: str
    kernel_name: str
    type: MapType
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    flags: int = 0
    extra: int = 0
    numa_node: int = 0
    key_type_id: int = 0
    value_type_id: int = 0
    inner: MapSpec | None = None
    values: tuple[tuple[int, str], ...] = ()
    content: bytes | None = None
    is_frozen: bool = False


def map_specs(
    obj: ElfObject, name: str = "", kconfig: Mapping[str, str | int] | None = None
) -> tuple[MapSpec, ...]:
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
        *_legacy(obj),
        *_defined(obj),
        *_data(obj, name),
        *_kconfig(obj, name, kconfig),
    )


def weak_names(obj: ElfObject) -> frozenset[str]:
    """Externs that may be absent."""
    weak = 2
    return frozenset(
        symbol.name for symbol in obj.symbols if symbol.section == 0 and symbol.bind == weak
    )


# Legacy maps: records of words in a section "maps".


def _legacy(obj: ElfObject) -> Iterator[MapSpec]:
    found = [info for info in obj.maps if info.kind == "legacy"]
    if not found:
        return
    symbols = {symbol.index: symbol for symbol in obj.symbols}
    section = obj.sections[symbols[found[0].symbol].section]
    size = section.size // len(found)
    if size < _WORD * _LEGACY_WORDS:
        raise FormatError(
            f"section {section.name} has {section.size} bytes for {len(found)} maps, "
            f"each takes {_WORD * _LEGACY_WORDS}",
            section.byte_off,
        )
    for info in found:
        at = symbols[info.symbol].value
        row = np.frombuffer(bytes(section.data)[at : at + size], "<u4")
        if row.size < _LEGACY_WORDS:
            raise FormatError(f"map {info.name} is cut off", section.byte_off + at)
        kind, key, value, entries, flags = row[:_LEGACY_WORDS].tolist()
        yield MapSpec(
            info.name, info.name[:NAME_LEN], _type(kind, info.name), key, value, entries, flags
        )


def _type(number: int, name: str) -> MapType:
    try:
        return MapType(number)
    except ValueError:
        raise UnsupportedError(f"map {name!r} has type {number}, which is not known") from None


# Maps in ".maps": their definitions are types.


def _defined(obj: ElfObject) -> Iterator[MapSpec]:
    btf = obj.btf
    names = {info.name for info in obj.maps if info.kind == "btf"}
    if not names:
        return
    if btf is None:
        raise UnsupportedError(
            f"section {BTF_MAPS} defines {', '.join(sorted(names))}, and the object has no .BTF "
            "to say what they are; compile with -g"
        )
    values = pointers_in(obj, BTF_MAPS)
    index = obj.raw.find(BTF_MAPS)
    places = {symbol.name: symbol.value for symbol in obj.symbols if symbol.section == index}
    for type_id in btf.find(BTF_MAPS, Kind.DATASEC):
        section = btf.type(type_id)
        assert isinstance(section, DataSec)
        for row in section.variables:
            var = btf.type(row.type_id)
            if not isinstance(var, Var):
                raise FormatError(f"type {row.type_id} in {BTF_MAPS} is no variable")
            spec, at = _definition(btf, var.name, var.type_id)
            start = places.get(var.name, row.byte_off)
            first = start + (row.size if at is None else at)
            filled = tuple(
                ((byte_off - first) // _POINTER, target)
                for byte_off, target in values
                if first <= byte_off < start + row.size
            )
            yield replace(spec, values=filled)


def _definition(btf: Btf, name: str, type_id: int) -> tuple[MapSpec, int | None]:
    """(map, byte_off of its ``values`` member) of a definition."""
    record = btf.type(btf.resolve(type_id))
    if not isinstance(record, Struct):
        raise FormatError(f"map {name!r} is defined by something that is no struct")
    found: dict[str, int] = {}
    inner: MapSpec | None = None
    values_at: int | None = None
    for member in record.members:
        if member.name in ("key", "value"):
            target = btf.type(btf.resolve(member.type_id))
            if not isinstance(target, Ptr):
                raise FormatError(f"map {name!r} has a {member.name} that is no pointer to a type")
            found[f"{member.name}_type_id"] = target.type_id
            found[f"{member.name}_size"] = btf.size_of(target.type_id)
        elif member.name == "values":
            values_at = member.bit_off // 8
            found["value_size"] = _WORD
            inner = _inner(btf, name, member.type_id)
        elif member.name != "pinning":
            found[_FIELDS.get(member.name, member.name)] = _number(btf, name, member.type_id)
    unknown = sorted(set(found) - _KNOWN)
    if unknown:
        raise UnsupportedError(f"map {name!r} is defined with {unknown[0]!r}, which is not known")
    kind = _type(found.pop("type", 0), name)
    spec = MapSpec(name, name[:NAME_LEN], kind, inner=inner)
    for field, number in found.items():
        spec = replace(spec, **{field: number})  # type: ignore[arg-type]  # _KNOWN are all int
    if kind in (MapType.RINGBUF, MapType.USER_RINGBUF):
        spec = replace(spec, max_entries=_ring_size(spec.max_entries))
    return spec, values_at


_FIELDS: Final = {"map_flags": "flags", "map_extra": "extra"}
_KNOWN: Final = frozenset(
    {
        "type",
        "key_size",
        "value_size",
        "key_type_id",
        "value_type_id",
        "max_entries",
        "flags",
        "extra",
        "numa_node",
    }
)


def _number(btf: Btf, name: str, type_id: int) -> int:
    """A number as map definitions encode it: an array's length, or an enum's constant."""
    record = btf.type(btf.resolve(type_id))
    if isinstance(record, (Enum, Enum64)) and len(record.values) == 1:
        return record.values[0].value
    if isinstance(record, Ptr):
        array = btf.type(btf.resolve(record.type_id))
        if isinstance(array, Array):
            return array.count
    raise FormatError(f"map {name!r} has a member that encodes no number")


def _inner(btf: Btf, name: str, type_id: int) -> MapSpec | None:
    """What a map of maps holds; None of an array of programs."""
    array = btf.type(btf.resolve(type_id))
    pointer = btf.type(btf.resolve(array.type_id)) if isinstance(array, Array) else None
    if not isinstance(pointer, Ptr):
        raise FormatError(f"map {name!r} has values that are no array of pointers")
    target = btf.resolve(pointer.type_id)
    if isinstance(btf.type(target), FuncProto):
        return None
    inner, _ = _definition(btf, f"{name}.inner", target)
    return inner


def _ring_size(size: int) -> int:
    """A ring buffer's size: a power of two times the page's size."""
    page = mmap.PAGESIZE
    if size % page == 0 and (size // page).bit_count() == 1:
        return size
    out = page
    while size and out <= size and out < 1 << 31:
        out *= 2
    return out if size else 0


def pointers_in(obj: ElfObject, section: str) -> list[tuple[int, str]]:
    """(byte_off, symbol's name) of each pointer that a section's relocations fill."""
    index = obj.raw.find(section)
    if index is None:
        return []
    symbols = read_symbols(obj.raw)
    return [
        (int(row["byte_off"]), symbols.name(int(row["sym"])))
        for rel in read_relocations(obj.raw, symbols)
        if rel.target == index
        for row in rel.rows
    ]


# Data sections: arrays of one entry.


def _data(obj: ElfObject, name: str) -> Iterator[MapSpec]:
    for section in obj.sections:
        base = "." + section.name.split(".")[1] if section.name.startswith(".") else ""
        if base not in (".data", ".rodata", ".bss") or not section.size:
            continue
        if not section.flags & _ALLOC or section.flags & _EXEC:
            continue
        if section.size > _MAX_SIZE:
            raise UnsupportedError(
                f"section {section.name} has {section.size} bytes, "
                f"a map's value at most {_MAX_SIZE}"
            )
        is_const = base == ".rodata"
        yield MapSpec(
            section.name,
            kernel_name(section.name, name),
            MapType.ARRAY,
            _WORD,
            section.size,
            1,
            MapFlag.MMAPABLE | (MapFlag.RDONLY_PROG if is_const else 0),
            value_type_id=_data_type(obj.btf, section),
            content=bytes(section.data) if section.has_bytes else b"",
            is_frozen=is_const,
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


def _kconfig(obj: ElfObject, name: str, given: Mapping[str, str | int] | None) -> Iterator[MapSpec]:
    btf = obj.btf
    if btf is None or not btf.find(KCONFIG, Kind.DATASEC):
        return
    content = kconfig_content(btf, weak_names(obj), given)
    yield MapSpec(
        KCONFIG,
        kernel_name(KCONFIG, name),
        MapType.ARRAY,
        _WORD,
        len(content),
        1,
        MapFlag.MMAPABLE | MapFlag.RDONLY_PROG,
        value_type_id=btf.find_one(KCONFIG, Kind.DATASEC) or 0,
        content=content,
        is_frozen=True,
    )
