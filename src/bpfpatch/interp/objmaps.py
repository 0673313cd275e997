"""The maps that an object defines, as the machine can make them.

Source: linux v6.1, tools/lib/bpf/libbpf.c, parse_btf_map_def() (what the
members of a definition mean) and bpf_object__init_user_maps() (legacy maps).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from bpfpatch.btf import Array, Btf, DataSec, Kind, Ptr, Struct, Var
from bpfpatch.elf import ElfObject
from bpfpatch.elf.symtab import read_relocations, read_symbols
from bpfpatch.errors import FormatError, UnsupportedError

from .machine import MapSpec
from .maps import MAP_KINDS

_SECTION: Final = ".maps"
_NUMBERS: Final = ("type", "key_size", "value_size", "max_entries")
_POINTER: Final = 8
_LEGACY_SIZE: Final = 20
_NEEDS_KEY: Final = frozenset({"prog_array", "perf_event_array", "array_of_maps", "cgroup_array"})


@dataclass(frozen=True, slots=True)
class DefinedMap:
    """A map of an object.

    Attributes:
        spec: how to make it.
        values: (index, name) of the programs or maps that it starts with.
    """

    spec: MapSpec
    values: tuple[tuple[int, str], ...] = ()


def defined_maps(obj: ElfObject) -> Iterator[DefinedMap]:
    """All maps of an object, those of data sections left out.

    Raises:
        FormatError: a definition is broken.
        UnsupportedError: the object has no BTF that would say what its maps are.
    """
    yield from _legacy(obj)
    yield from _by_btf(obj)


def _legacy(obj: ElfObject) -> Iterator[DefinedMap]:
    symbols = {symbol.index: symbol for symbol in obj.symbols}
    for info in obj.maps:
        if info.kind != "legacy":
            continue
        symbol = symbols[info.symbol]
        section = obj.sections[symbol.section]
        row = bytes(section.data)[symbol.value : symbol.value + _LEGACY_SIZE]
        if len(row) < _LEGACY_SIZE:
            raise FormatError(f"map {info.name} is cut off", section.byte_off + symbol.value)
        words = [int.from_bytes(row[at : at + 4], obj.byteorder) for at in range(0, 16, 4)]
        kind, key_size, value_size, max_entries = words
        yield DefinedMap(
            MapSpec(_kind(kind, info.name), key_size, value_size, max_entries, info.name)
        )


def _kind(number: int, name: str) -> str:
    if number >= len(MAP_KINDS):
        raise UnsupportedError(f"map {name!r} has type {number}, which is not known")
    return MAP_KINDS[number]


def _by_btf(obj: ElfObject) -> Iterator[DefinedMap]:
    names = [info.name for info in obj.maps if info.kind == "btf"]
    if not names:
        return
    btf = obj.btf
    if btf is None:
        raise UnsupportedError(
            f"the object has no .BTF to say what the maps {', '.join(names)} are; compile with -g"
        )
    index = obj.raw.find(_SECTION)
    places = {symbol.name: symbol.value for symbol in obj.symbols if symbol.section == index}
    pointers = dict(_pointers(obj, index))
    for type_id in btf.find(_SECTION, Kind.DATASEC):
        section = btf.type(type_id)
        assert isinstance(section, DataSec)
        for row in section.variables:
            var = btf.type(row.type_id)
            assert isinstance(var, Var)
            spec, values_at = _definition(btf, var)
            if values_at is None:
                yield DefinedMap(spec)
                continue
            start = places.get(var.name, row.byte_off)
            size = row.size or btf.size_of(var.type_id)
            filled = tuple(
                ((at - start - values_at) // _POINTER, name)
                for at, name in pointers.items()
                if start + values_at <= at < max(start + size, start + values_at + 1)
            )
            yield DefinedMap(spec, filled)


def _pointers(obj: ElfObject, section: int | None) -> Iterator[tuple[int, str]]:
    """(byte_off, name) of what the section's pointers point at."""
    symbols = read_symbols(obj.raw)
    for relocations in read_relocations(obj.raw, symbols):
        if relocations.target != section:
            continue
        for row in relocations.rows:
            yield int(row["byte_off"]), symbols.name(int(row["sym"]))


def _definition(btf: Btf, var: Var) -> tuple[MapSpec, int | None]:
    """The map, and where in its definition the initial values start."""
    record = btf.type(btf.resolve(var.type_id))
    if not isinstance(record, Struct):
        raise FormatError(f"map {var.name!r} is defined by something that is no struct")
    found = dict.fromkeys(_NUMBERS, 0)
    values_at = None
    for member in record.members:
        target = btf.type(btf.resolve(member.type_id))
        if member.name in _NUMBERS and isinstance(target, Ptr):
            found[member.name] = _count(btf, target)
        elif member.name in ("key", "value") and isinstance(target, Ptr):
            found[f"{member.name}_size"] = btf.size_of(target.type_id)
        elif member.name == "values":
            values_at = member.bit_off // 8
    kind = _kind(found["type"], var.name)
    spec = MapSpec(kind, found["key_size"], found["value_size"], found["max_entries"], var.name)
    if kind in _NEEDS_KEY:
        spec = replace(spec, key_size=spec.key_size or 4, value_size=4)
    return spec, values_at


def _count(btf: Btf, pointer: Ptr) -> int:
    """A number, which a definition writes as a pointer to an array of that length."""
    array = btf.type(btf.resolve(pointer.type_id))
    if not isinstance(array, Array):
        raise FormatError("a map's definition has a number that is no array")
    return array.count
