"""The maps that an object defines, as the machine can make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import MapDefinition, map_definitions
from bpfpatch.facts.kinds import MapType

from .machine import MapSpec
from .maps import MAP_KINDS

_WORD: Final = 4
# Their keys and values are words, whether a definition says so or not.
_OF_WORDS: Final = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.CGROUP_ARRAY,
    }
)


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
        UnsupportedError: it has what is not known, or the object has no BTF that would say what
            its maps are.
    """
    for found in map_definitions(obj):
        yield DefinedMap(_made(found), found.values)


def _made(found: MapDefinition) -> MapSpec:
    key_size, value_size = found.key_size, found.value_size
    if found.type in _OF_WORDS:
        key_size, value_size = key_size or _WORD, _WORD
    return MapSpec(MAP_KINDS[found.type], key_size, value_size, found.max_entries, found.name)
