"""The maps that an object defines, as the machine can make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bpfpatch.elf import ElfObject
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapDefinition

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


def defined_maps(obj: ElfObject) -> Iterator[MapDefinition]:
    """All maps of an object, those of data sections left out.

    Raises:
        FormatError: a definition is broken.
        UnsupportedError: it has what is not known, or the object has no BTF that would say what
            its maps are.
    """
    for found in map_definitions(obj):
        if found.type in _OF_WORDS:
            yield replace(found, key_size=found.key_size or _WORD, value_size=_WORD)
        else:
            yield found
