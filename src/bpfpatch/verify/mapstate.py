"""A machine's maps: filling them for a run, reading them after it, and emptying them again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from bpfpatch.interp import Machine, SimulatedMap
from bpfpatch.interp.errors import BadHelperUse, OutOfMemory
from bpfpatch.interp.maps import (
    ArrayMap,
    DataMap,
    DeviceMap,
    HashMap,
    OuterMap,
    ProgMap,
    QueueMap,
    SentMap,
)

from .case import Entry

SECTION_KEY: Final = bytes(4)


class MapState:
    """What the maps hold at the start, and how to get back there.

    Args:
        machine: whose maps; nothing has run on it.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._sections: dict[str, bytes] = {}
        self._fixed: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._plain: list[SimulatedMap] = []
        for name, found in machine.maps.items():
            if isinstance(found, DataMap):
                self._sections[name] = bytes(_section(machine, found))
            elif isinstance(found, ProgMap):
                self._fixed.append((found.programs, dict(found.programs)))
            elif isinstance(found, OuterMap):
                self._fixed.append((found.inner, dict(found.inner)))
            else:
                self._plain.append(found)

    @property
    def sections(self) -> dict[str, bytes]:
        """Sections of global data, with what they hold at first."""
        return self._sections

    def value_size(self, name: str) -> int | None:
        """Bytes of a map's value; None where it cannot be filled."""
        found = self._machine.maps.get(name)
        if found is None or isinstance(found, (ProgMap, OuterMap, SentMap, DataMap)):
            return None
        return found.value_size

    def initial(self, name: str) -> bytes | None:
        """What each element of an array, or a section, holds at first; None of other maps."""
        found = self._machine.maps.get(name)
        if isinstance(found, DataMap):
            return self._sections[name]
        return bytes(found.value_size) if isinstance(found, ArrayMap) else None

    def fill(self, entries: Iterable[Entry]) -> None:
        """Put entries in. Of those that a map does not take, nothing is left."""
        for entry in entries:
            found = self._machine.maps.get(entry.map)
            if isinstance(found, DataMap):
                size = len(self._sections[entry.map])
                _section(self._machine, found)[:] = entry.value[:size].ljust(size, b"\0")
            elif found is not None and not isinstance(found, (ProgMap, OuterMap, SentMap)):
                value = entry.value[: found.value_size].ljust(found.value_size, b"\0")
                try:
                    found.set(entry.key, value)
                except (BadHelperUse, OutOfMemory):
                    continue

    def read(self) -> dict[str, Any]:
        """What they hold now; of what cannot be compared, nothing."""
        machine = self._machine
        out: dict[str, Any] = {}
        for name, found in machine.maps.items():
            if isinstance(found, DataMap):
                out[name] = {SECTION_KEY: bytes(_section(machine, found))}
            elif not isinstance(found, OuterMap):
                out[name] = found.contents()
        return out

    def reset(self) -> None:
        """Bring everything back to the start."""
        for name, content in self._sections.items():
            found = self._machine.maps[name]
            assert isinstance(found, DataMap)
            _section(self._machine, found)[:] = content
        for now, before in self._fixed:
            if now != before:
                now.clear()
                now.update(before)
        for found in self._plain:
            _empty(self._machine, found)
        self._machine.memory.end_run()


def _section(machine: Machine, found: DataMap) -> bytearray:
    region = machine.memory.find(found.data_address)
    assert region is not None
    return region.data


def _empty(machine: Machine, found: SimulatedMap) -> None:
    if isinstance(found, SentMap):
        found.empty()
    elif isinstance(found, QueueMap):
        while found.take(remove=True) is not None:
            pass
    elif isinstance(found, (HashMap, DeviceMap)):
        for key in found.contents():
            found.delete(key)
    elif isinstance(found, ArrayMap):
        for key in found.contents():
            found.set(key, bytes(found.value_size))
