"""Records that traced programs send, as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bpfpatch.bpf.map import Map
from bpfpatch.bpf.ringbuf import RingReader
from bpfpatch.passes.trace import TraceMap, TraceRecord

_OFTEN_S: Final = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class _Ring:
    meaning: TraceMap
    ring: Map
    reader: RingReader


class Records:
    """Reads ring buffers in a thread of its own.

    Args:
        told: gets each record.
    """

    def __init__(self, told: Callable[[TraceRecord], None]) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._rings: list[_Ring] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="bpfpatch-trace", daemon=True)

    def add(self, meaning: TraceMap, ring: Map) -> None:
        """A program that was loaded; the map is closed from here."""
        with self._lock:
            self._rings.append(_Ring(meaning, ring, RingReader(ring)))
            if not self._thread.is_alive():
                self._thread.start()

    def close(self) -> None:
        """Tell what is left, and close all."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._tell()
        for one in self._rings:
            one.reader.close()
            one.ring.close()
        self._rings = []

    def _follow(self) -> None:
        while not self._is_over.wait(_OFTEN_S):
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            rings = list(self._rings)
        for one in rings:
            for data in one.reader.read():
                self._told(one.meaning.record(data))
