"""What is in the maps, in a form that is the same for the interpreter and the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from bpfpatch.bpf.batch import read_array
from bpfpatch.bpf.map import Map
from bpfpatch.elf import ElfObject
from bpfpatch.elf.setup import PreparedEntry
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MAX_VALUE
from bpfpatch.interp import Machine
from bpfpatch.interp.maps import DataMap, OuterMap, ProgMap, QueueMap, SentMap
from bpfpatch.interp.maps import SimulatedMap as InterpMap

ARRAYS: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
HASHES: Final = frozenset(
    {
        MapType.HASH,
        MapType.PERCPU_HASH,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.LPM_TRIE,
    }
)
READABLE: Final = frozenset(kind.text for kind in ARRAYS | HASHES)
"""Kinds of maps that have keys, values, and a way to read both without changing them."""
FIXED: Final = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.HASH_OF_MAPS,
        MapType.DEVMAP,
        MapType.DEVMAP_HASH,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
    }
)
"""Kinds that a program cannot change."""
_FEW: Final = 16
"""Elements that are read faster one by one."""
_ZERO_KEY: Final = bytes(4)


def data_sections(obj: ElfObject, entries: Iterable[PreparedEntry] = ()) -> dict[str, bytes]:
    """Sections of variables that a program may change, with what they hold at first.

    Args:
        obj: the object.
        entries: what a setup puts into sections in place of what the object has.

    Raises:
        UnsupportedError: one is larger than a map's value can be.
    """
    out = {}
    for section in obj.sections:
        base = section.name.split(".")[1] if section.name.startswith(".") else ""
        if base in ("data", "bss") and section.size:
            if section.size > MAX_VALUE:
                raise UnsupportedError(
                    f"section {section.name} has {section.size} bytes, "
                    f"a map's value at most {MAX_VALUE}"
                )
            out[section.name] = bytes(section.data) if section.has_bytes else bytes(section.size)
    return out | {entry.map: entry.value for entry in entries if entry.map in out}


def _is_other_data(name: str) -> bool:
    """Whether this is data that no program changes, or none of the object's."""
    return name.startswith((".rodata", ".kconfig", ".addr_space"))


class InterpMaps:
    """The maps of a machine, and what was in them when it was new.

    Args:
        machine: the machine, before its first run.
        data: the variables that the object has, whether the program uses them or not.
    """

    def __init__(self, machine: Machine, data: Mapping[str, bytes]) -> None:
        self._machine = machine
        self._data = data
        self._programs = {
            one.name: dict(one.programs)
            for one in machine.maps.values()
            if isinstance(one, ProgMap)
        }
        self._inner = {
            one.name: dict(one.inner) for one in machine.maps.values() if isinstance(one, OuterMap)
        }

    def read(self) -> dict[str, dict[bytes, bytes]]:
        """By name and key."""
        out: dict[str, dict[bytes, bytes]] = {}
        for name, content in self._data.items():
            out[name] = {_ZERO_KEY: content} if any(content) else {}
        for name, one in self._machine.maps.items():
            if one.kind in READABLE and not _is_other_data(name):
                out[name] = dict(one.contents())
        return out

    def restore(self) -> None:
        """Put back what there was at first."""
        for one in self._machine.maps.values():
            self._restore(one)
        self._machine.memory.end_run()

    def _restore(self, one: InterpMap) -> None:
        memory = self._machine.memory
        if isinstance(one, DataMap):
            if one.is_writable:
                memory.write(one.data_address, self._data.get(one.name, bytes(one.value_size)))
        elif one.kind in ("array", "percpu_array"):
            for key in one.contents():
                memory.write(one.lookup(key), bytes(one.value_size))
        elif isinstance(one, ProgMap):
            one.programs = dict(self._programs[one.name])
        elif isinstance(one, OuterMap):
            one.inner = dict(self._inner[one.name])
        elif isinstance(one, QueueMap):
            while one.take(remove=True) is not None:
                pass
        elif isinstance(one, SentMap):
            one.empty()
        elif one.kind in READABLE:
            for key in one.contents():
                one.delete(key)


class KernelMaps:
    """The maps of an object in the kernel, and how to put them back.

    Args:
        maps: by name.
        data: the variables that the object has.
        cpu: the processor that programs run on; of per-CPU values its part counts.
    """

    def __init__(self, maps: Mapping[str, Map], data: Mapping[str, bytes], cpu: int) -> None:
        self._maps = maps
        self._data = data
        self._cpu = cpu

    @property
    def can_restore(self) -> bool:
        """Whether all that a program may have changed can be put back."""
        kinds = ARRAYS | HASHES | FIXED
        return all(one.type in kinds for one in self._maps.values())

    def read(self) -> dict[str, dict[bytes, bytes]]:
        """By name and key."""
        return {
            name: self._part(one, _entries(one))
            for name, one in self._maps.items()
            if one.type in ARRAYS | HASHES and not _is_other_data(name)
        }

    def restore(self) -> None:
        """Put back what there was at first, where `can_restore`."""
        for name, one in self._maps.items():
            if one.type in HASHES:
                for key in list(one.keys()):
                    one.delete(key)
            elif name in self._data:
                one.update(_ZERO_KEY, self._data[name])
            elif one.type in ARRAYS and not _is_other_data(name):
                for key in _entries(one):
                    one.update(key, bytes(one.n_value_bytes))

    def _part(self, one: Map, entries: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Of per-CPU values those of one CPU; of arrays no zeros."""
        if one.is_per_cpu:
            entries = {key: one.per_cpu(value)[self._cpu] for key, value in entries.items()}
        if one.type in HASHES:
            return dict(sorted(entries.items()))
        return {key: value for key, value in sorted(entries.items()) if any(value)}


def _entries(one: Map) -> dict[bytes, bytes]:
    """Keys and values; of arrays those that are not zeros on all CPUs."""
    if one.type in ARRAYS and one.max_entries > _FEW:
        with suppress(OSError):
            return read_array(one)
    found = one.dump()
    if one.type in HASHES:
        return found
    return {key: value for key, value in found.items() if any(value)}
