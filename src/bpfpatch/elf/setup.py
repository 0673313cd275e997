"""What a program finds when it starts: values of its variables, and entries of its maps.

::

    setup = Setup({"limits.max": 10}, (SetupEntry("ports", 80, {"mode": "DROP"}),))
    with runs.open_runner(obj.link("balance"), obj=obj, setup=setup) as runner:
        ...

A `Setup` is what is asked for, before it is known of which object. `prepare` makes it one object's:
names are looked up, and values become bytes by their BTF types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Self

from bpfpatch.btf.literals import HEX
from bpfpatch.btf.values import value_bytes, write_value
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import MapFlag, MapType
from bpfpatch.facts.maps import MAX_VALUE, MapDefinition
from bpfpatch.text import unknown

from .mapdefs import map_definitions
from .object import ElfObject
from .raw import SHT_NOBITS
from .values import find_spot

SECTION_KEY: Final = bytes(4)
"""The only key of a section of variables, which is an array of one element."""

_ARRAYS: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.DEVMAP, MapType.CPUMAP)
_BOUNDED: Final = (MapType.HASH, MapType.PERCPU_HASH, MapType.LPM_TRIE, MapType.DEVMAP_HASH)
_EVICTING: Final = (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
_KEYLESS: Final = (MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER)
_HOLDING: Final = {
    MapType.PROG_ARRAY: "programs",
    MapType.ARRAY_OF_MAPS: "maps",
    MapType.HASH_OF_MAPS: "maps",
}
_WORD: Final = 4
_ENTRY: Final = re.compile(r"\s*([^\[\]=\s]+)\s*\[")


@dataclass(frozen=True, slots=True)
class SetupEntry:
    """An entry of a map, as it is asked for.

    Attributes:
        map: the map's name.
        key: by the key's BTF type: a number, an enumerator's name, text, a list, a dict by
            member; or bytes, also as text that begins with ``hex:``.
        value: by the value's type; of a per-CPU map what each CPU gets.
    """

    map: str
    key: Any
    value: Any


class PreparedEntry(NamedTuple):
    """An entry of a map, or of a section of variables, as bytes.

    Attributes:
        map: name of the map or section.
        key: of the map's size; of a section `SECTION_KEY`.
        value: of the map's size; of a section all of it.
    """

    map: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A setup that was made an object's.

    Attributes:
        obj: the object with the values of its variables.
        entries: what its maps hold in the beginning, and sections that start with zeros.
        sections: those in which variables were given values.
    """

    obj: ElfObject
    entries: tuple[PreparedEntry, ...] = ()
    sections: frozenset[str] = frozenset()

    @property
    def fixed(self) -> frozenset[tuple[str, bytes]]:
        """Map and key of what the setup gives, whole sections of variables among them."""
        places = {(one.map, one.key) for one in self.entries}
        return frozenset(places | {(name, SECTION_KEY) for name in self.sections})


@dataclass(frozen=True, slots=True)
class Setup:
    """Values of variables, and entries of maps, that a program starts with.

    Attributes:
        variables: by name, or member or element of one; see `ElfObject.with_values`. Those that
            programs write can be given, too: it is what they start with.
        entries: of maps; of two for one key the later counts.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[SetupEntry, ...] = ()

    def __post_init__(self) -> None:
        """Keep a copy that nothing else can change."""
        object.__setattr__(self, "variables", MappingProxyType(dict(self.variables)))
        object.__setattr__(self, "entries", tuple(self.entries))

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.variables or self.entries)

    def then(self, other: Setup) -> Setup:
        """This, and what the other asks for, which counts where both do."""
        # A member given later comes after the whole struct.
        kept = {name: one for name, one in self.variables.items() if name not in other.variables}
        return Setup({**kept, **other.variables}, (*self.entries, *other.entries))

    @classmethod
    def from_json(cls, found: Any) -> Self:
        """What a setup file says; see docs/setup.md.

        Raises:
            OptionError: it is not made as that page says.
        """
        if not isinstance(found, dict):
            raise OptionError("a setup is a JSON object with variables and maps")
        unknown = sorted(set(found) - {"variables", "maps"})
        if unknown:
            raise OptionError(f"a setup has variables and maps, no {unknown[0]!r}")
        variables, maps = found.get("variables", {}), found.get("maps", {})
        if not isinstance(variables, dict):
            raise OptionError("a setup's variables are an object: values by name")
        if not isinstance(maps, dict):
            raise OptionError("a setup's maps are an object: lists of entries by name")
        return cls(variables, tuple(_json_entries(maps)))

    def to_json(self) -> dict[str, Any]:
        """As in a setup file; bytes are text with ``hex:``."""
        maps: dict[str, list[dict[str, Any]]] = {}
        for one in self.entries:
            row = {"key": _plain(one.key), "value": _plain(one.value)}
            maps.setdefault(one.map, []).append(row)
        return {"variables": _plain(dict(self.variables)), "maps": maps}

    def prepare(self, obj: ElfObject, original: ElfObject | None = None) -> Prepared:
        """Look names up in an object, and make values bytes.

        Args:
            obj: stays as it is.
            original: what it was made of: a variable or map that only this has may be gone.

        Raises:
            OptionError: there is no such variable or map, a key or value does not fit, or the map
                takes no entries.
            UnsupportedError: the object has no BTF that would say what its maps are.
        """
        if not self:
            return Prepared(obj)
        values = dict(self.variables)
        if original is not None:
            values = _without_gone(values, obj, original)
        zeros = {name: one for name, one in values.items() if _starts_as_zeros(obj, name)}
        others = {name: one for name, one in values.items() if name not in zeros}
        made = obj.with_values(others, writable=True) if others else obj
        spots = (find_spot(obj.btf, obj.variables, name) for name in values)
        return Prepared(
            made,
            (*_sections(obj, zeros), *_entries(self.entries, obj, original)),
            frozenset(spot.variable.section for spot in spots),
        )


def parse_entry(text: str) -> SetupEntry:
    """An entry as the command line has it: ``NAME[KEY]=VALUE``.

    Raises:
        OptionError: it is none.
    """
    found = _ENTRY.match(text)
    end = None if found is None else _closing(text, found.end())
    if found is None or end is None:
        raise OptionError(f"an entry is NAME[KEY]=VALUE, not {text!r}")
    rest = text[end + 1 :].lstrip()
    if not rest.startswith("="):
        after = f"; {rest.split('=')[0]!r} follows the key" if rest else ""
        raise OptionError(f"an entry is NAME[KEY]=VALUE, not {text!r}{after}")
    return SetupEntry(found[1], text[found.end() : end].strip(), rest[1:].strip())


def _closing(text: str, start: int) -> int | None:
    """Where the bracket closes that opened just before; those in quotes do not count."""
    depth, is_quoted, at = 1, False, start
    while at < len(text):
        sign = text[at]
        if is_quoted and sign == "\\":
            at += 1
        elif sign == '"':
            is_quoted = not is_quoted
        elif not is_quoted and sign in "[]":
            depth += 1 if sign == "[" else -1
            if not depth:
                return at
        at += 1
    return None


def _json_entries(maps: Mapping[str, Any]) -> Iterator[SetupEntry]:
    for name, rows in maps.items():
        if not isinstance(rows, list):
            raise OptionError(f"map {name!r} has a list of entries, each with a key and a value")
        for row in rows:
            if not isinstance(row, dict) or set(row) != {"key", "value"}:
                shown = json.dumps(row)[:80]
                raise OptionError(f"an entry of map {name!r} has a key and a value, not {shown}")
            yield SetupEntry(name, row["key"], row["value"])


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return HEX + value.hex()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


# Variables.


def _without_gone(values: Mapping[str, Any], obj: ElfObject, original: ElfObject) -> dict[str, Any]:
    """Values of variables that the object still has, or never had."""
    gone = {one.name for one in original.variables} - {one.name for one in obj.variables}
    return {
        name: value
        for name, value in values.items()
        if not any(name == one or name.startswith((f"{one}.", f"{one}[")) for one in gone)
    }


def _starts_as_zeros(obj: ElfObject, name: str) -> bool:
    number = find_spot(obj.btf, obj.variables, name).variable.number
    return int(obj.raw.shdrs["type"][number]) == SHT_NOBITS


def _sections(obj: ElfObject, values: Mapping[str, Any]) -> Iterator[PreparedEntry]:
    """Sections that have no bytes in the file, with values in them."""
    contents: dict[str, bytearray] = {}
    for name, value in values.items():
        spot = find_spot(obj.btf, obj.variables, name)
        one = spot.variable
        assert obj.btf is not None
        size = int(obj.raw.shdrs["size"][one.number])
        if size > MAX_VALUE:
            raise OptionError(
                f"{name} is in {one.section} of {size} bytes, and no map has more than {MAX_VALUE}"
            )
        content = contents.setdefault(one.section, bytearray(size))
        data = content[one.byte_off : one.byte_off + one.size]
        write_value(obj.btf, spot.place, data, value, obj.byteorder, name)
        content[one.byte_off : one.byte_off + one.size] = data
    for section, content in contents.items():
        yield PreparedEntry(section, SECTION_KEY, bytes(content))


# Maps.


def _entries(
    entries: Sequence[SetupEntry], obj: ElfObject, original: ElfObject | None
) -> list[PreparedEntry]:
    if not entries:
        return []
    known = {one.name: one for one in map_definitions(obj)}
    gone = set() if original is None else {one.name for one in original.maps} - set(known)
    out: dict[tuple[str, bytes], PreparedEntry] = {}
    for entry in entries:
        if entry.map in gone:
            continue
        made = _prepared(entry, _named(known, entry.map), obj)
        out.pop((made.map, made.key), None)
        out[made.map, made.key] = made
    for name in dict.fromkeys(one.map for one in out.values()):
        _check_room(known[name], sum(one.map == name for one in out.values()))
    return list(out.values())


def _named(known: Mapping[str, MapDefinition], name: str) -> MapDefinition:
    found = known.get(name)
    if found is not None:
        return found
    if name.startswith("."):
        raise OptionError(f"{name} is a section of variables: set these by their own names")
    raise OptionError(unknown("map", name, known))


def _prepared(entry: SetupEntry, spec: MapDefinition, obj: ElfObject) -> PreparedEntry:
    _check_kind(spec)
    name = f"{spec.name}[{_shown(entry.key)}]"
    order = obj.byteorder
    n_key = spec.key_size or (_WORD if spec.type in _ARRAYS else 0)
    key = value_bytes(obj.btf, spec.key_type_id, n_key, entry.key, order, f"the key of {name}")
    _check_key(spec, key, order, name)
    value = value_bytes(obj.btf, spec.value_type_id, spec.value_size, entry.value, order, name)
    return PreparedEntry(spec.name, key, value)


def _shown(key: Any) -> str:
    text = HEX + key.hex() if isinstance(key, bytes) else key if isinstance(key, str) else str(key)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _check_kind(spec: MapDefinition) -> None:
    """Refuse kinds of maps whose entries are not bytes that anything could write.

    Raises:
        OptionError: this is one.
    """
    if spec.type in (*_ARRAYS, *_BOUNDED, *_EVICTING):
        if spec.flags & MapFlag.RDONLY:
            raise OptionError(f"map {spec.name!r} is one that only programs write (BPF_F_RDONLY)")
        return
    what = f"map {spec.name!r} is of type {spec.type.text}"
    if spec.type in _KEYLESS:
        raise OptionError(f"{what}, which has no keys: there is no entry to set")
    if spec.type in _HOLDING:
        raise OptionError(
            f"{what}: it holds {_HOLDING[spec.type]}, which the source gives with .values in the "
            "map's definition"
        )
    kinds = ", ".join(one.text for one in (*_ARRAYS, *_BOUNDED, *_EVICTING))
    raise OptionError(f"{what}, whose entries cannot be set; set those of {kinds}")


def _check_key(spec: MapDefinition, key: bytes, order: Any, name: str) -> None:
    number = int.from_bytes(key[:_WORD], order)
    if spec.type in _ARRAYS and number >= spec.max_entries:
        raise OptionError(f"{name}: the map has {spec.max_entries} elements, the first is 0")
    if spec.type is MapType.LPM_TRIE and number > 8 * (len(key) - _WORD):
        raise OptionError(
            f"{name}: a prefix has {8 * (len(key) - _WORD)} bits at most, not {number}"
        )


def _check_room(spec: MapDefinition, n_entries: int) -> None:
    if n_entries > spec.max_entries:
        raise OptionError(
            f"map {spec.name!r} has room for {spec.max_entries} entries, {n_entries} are given"
        )


__all__ = ["Prepared", "PreparedEntry", "Setup", "SetupEntry", "parse_entry"]
