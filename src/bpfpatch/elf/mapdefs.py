"""The maps that an object defines: legacy records, and types in ".maps".

Source: libbpf v1.1, src/libbpf.c, parse_btf_map_def() and bpf_object__collect_map_relos();
libbpf v0.8, bpf_object__init_user_maps().
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Final

import numpy as np

from bpfpatch.btf import Array, Btf, DataSec, Enum, Enum64, FuncProto, Kind, Ptr, Struct, Var
from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition

from .contents import BTF_MAPS
from .object import ElfObject
from .symtab import read_relocations, read_symbols

_POINTER: Final = 8
_WORD: Final = 4
_LEGACY_WORDS: Final = 5
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


def map_definitions(obj: ElfObject) -> Iterator[MapDefinition]:
    """All maps that an object defines, legacy ones first; those of data sections are not such.

    Raises:
        FormatError: a definition is broken, a map has no name or that of another one.
        UnsupportedError: it has what is not known, or the object has no BTF to say what its maps
            are.
    """
    names: set[str] = set()
    for defined in chain(_legacy(obj), _defined(obj)):
        if not defined.name:
            raise FormatError(f"a map of type {defined.type.name.lower()} has no name")
        if defined.name in names:
            raise FormatError(f"two maps have the name {defined.name!r}")
        names.add(defined.name)
        yield defined


# Legacy maps: records of words in sections "maps" and "maps/NAME".


def _legacy(obj: ElfObject) -> Iterator[MapDefinition]:
    symbols = {symbol.index: symbol for symbol in obj.symbols}
    found = [(info, symbols[info.symbol]) for info in obj.maps if info.kind == "legacy"]
    # There may be several sections, of one name or of one for each map.
    n_maps = Counter(symbol.section for _, symbol in found)
    order = "<u4" if obj.byteorder == "little" else ">u4"
    for info, symbol in found:
        section = obj.sections[symbol.section]
        size = section.size // n_maps[symbol.section]
        if size < _WORD * _LEGACY_WORDS:
            raise FormatError(
                f"section {section.name} has {section.size} bytes for {n_maps[symbol.section]} "
                f"maps, each takes {_WORD * _LEGACY_WORDS}",
                section.byte_off,
            )
        at = symbol.value
        words = bytes(section.data)[at : at + size]
        row = np.frombuffer(words[: len(words) // _WORD * _WORD], order)
        if row.size < _LEGACY_WORDS:
            raise FormatError(f"map {info.name} is cut off", section.byte_off + at)
        kind, key, value, entries, flags = row[:_LEGACY_WORDS].tolist()
        yield MapDefinition(info.name, _type(kind, info.name), key, value, entries, flags)


def _type(number: int, name: str) -> MapType:
    try:
        return MapType(number)
    except ValueError:
        raise UnsupportedError(f"map {name!r} has type {number}, which is not known") from None


# Maps in ".maps": their definitions are types.


def _defined(obj: ElfObject) -> Iterator[MapDefinition]:
    btf = obj.btf
    names = {info.name for info in obj.maps if info.kind == "btf"}
    if not names:
        return
    if btf is None:
        raise UnsupportedError(
            f"section {BTF_MAPS} defines {', '.join(sorted(names))}, and the object has no .BTF "
            "that describes them; compile with -g"
        )
    values = pointers_in(obj, BTF_MAPS)
    index = obj.raw.find(BTF_MAPS)
    places = {symbol.name: symbol.value for symbol in obj.symbols if symbol.section == index}
    missing = set(names)
    for type_id in btf.find(BTF_MAPS, Kind.DATASEC):
        section = btf.type(type_id)
        assert isinstance(section, DataSec)
        for row in section.variables:
            var = btf.type(row.type_id)
            if not isinstance(var, Var):
                raise FormatError(f"type {row.type_id} in {BTF_MAPS} is not a variable")
            spec, at = read_definition(btf, var.name, var.type_id)
            missing.discard(var.name)
            start = places.get(var.name, row.byte_off)
            if at is None:
                yield spec
                continue
            first = start + at
            # The type's own size leaves out what an array of no length is filled with.
            end = max(start + (row.size or btf.size_of(var.type_id)), first + 1)
            filled = tuple(
                ((byte_off - first) // _POINTER, target)
                for byte_off, target in values
                if first <= byte_off < end
            )
            yield replace(spec, values=filled)
    if missing:
        raise FormatError(
            f"section {BTF_MAPS} has a symbol {min(missing)!r}, and .BTF no variable of that name "
            "there that would say what map it is"
        )


def read_definition(
    btf: Btf, name: str, type_id: int, *, is_inner: bool = False
) -> tuple[MapDefinition, int | None]:
    """(map, byte_off of its ``values`` member) of a definition.

    What an inner map would hold is not read: as for libbpf, it has to be of no maps.

    Raises:
        FormatError: it is broken.
        UnsupportedError: it has what is not known.
    """
    record = btf.type(btf.resolve(type_id))
    if not isinstance(record, Struct):
        raise FormatError(f"map {name!r} is defined by something that is not a struct")
    found: dict[str, int] = {}
    inner: MapDefinition | None = None
    values_at: int | None = None
    for member in record.members:
        if member.name in ("key", "value"):
            target = btf.type(btf.resolve(member.type_id))
            if not isinstance(target, Ptr):
                raise FormatError(
                    f"map {name!r} has a {member.name} that is not a pointer to a type"
                )
            found[f"{member.name}_type_id"] = target.type_id
            found[f"{member.name}_size"] = btf.size_of(target.type_id)
        elif member.name == "values":
            values_at = member.bit_off // 8
            found["value_size"] = _WORD
            if is_inner:
                raise UnsupportedError(f"map {name!r} is an inner map and cannot hold maps itself")
            inner = _inner(btf, name, member.type_id)
        elif member.name != "pinning":
            field = _FIELDS.get(member.name, member.name)
            found[field] = number = _number(btf, name, member.type_id)
            if not 0 <= number < 1 << (64 if field == "extra" else 32):
                raise FormatError(f"map {name!r} has {number} for {member.name}")
    unknown = sorted(set(found) - _KNOWN)
    if unknown:
        raise UnsupportedError(f"map {name!r} is defined with {unknown[0]!r}, which is not known")
    kind = _type(found.pop("type", 0), name)
    spec = MapDefinition(name, kind, inner=inner)
    for key, value in found.items():
        spec = replace(spec, **{key: value})  # type: ignore[arg-type]  # _KNOWN are all int
    return spec, values_at


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


def _inner(btf: Btf, name: str, type_id: int) -> MapDefinition | None:
    """What a map of maps holds; None of an array of programs."""
    array = btf.type(btf.resolve(type_id))
    pointer = btf.type(btf.resolve(array.type_id)) if isinstance(array, Array) else None
    if not isinstance(pointer, Ptr):
        raise FormatError(f"map {name!r} has values that are not an array of pointers")
    target = btf.resolve(pointer.type_id)
    if isinstance(btf.type(target), FuncProto):
        return None
    inner, _ = read_definition(btf, f"{name}.inner", target, is_inner=True)
    return inner


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
