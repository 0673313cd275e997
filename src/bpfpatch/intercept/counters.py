"""Counters of the programs that a command has loaded."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from typing import Final

from bpfpatch.bpf.map import Map
from bpfpatch.bpf.syscall import Cmd, Handle, bpf
from bpfpatch.coverage import Coverage, collect
from bpfpatch.coverage.united import united
from bpfpatch.passes.cover import CoverMap

_MOST_OPEN: Final = 128
"""Maps that are kept open before those of programs that are gone are read and closed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Live:
    cover: CoverMap
    counters: Map
    prog_id: int


class Counters:
    """Counters of all programs that were loaded, also of those that are gone again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[_Live] = []
        self._gone: dict[int, Coverage] = {}
        self._next_sweep = _MOST_OPEN

    def add(self, cover: CoverMap, counters: Map, prog_id: int) -> None:
        """A program that was loaded; the map is closed from here."""
        with self._lock:
            self._live.append(_Live(cover, counters, prog_id))
            if len(self._live) >= self._next_sweep:
                self._sweep()
                self._next_sweep = max(_MOST_OPEN, 2 * len(self._live))

    def read(self) -> Coverage:
        """What all have counted up to now.

        Raises:
            OptionError: nothing was instrumented.
            KernelError: the kernel refused.
        """
        with self._lock:
            live = [collect.from_map(one.cover, one.counters) for one in self._live]
            return united([*self._gone.values(), *live])

    def close(self) -> None:
        """Close all maps."""
        with self._lock:
            for one in self._live:
                one.counters.close()
            self._live = []

    def _sweep(self) -> None:
        kept = []
        for one in self._live:
            if _is_loaded(one.prog_id):
                kept.append(one)
                continue
            last = collect.from_map(one.cover, one.counters)
            one.counters.close()
            before = self._gone.get(one.cover.identity)
            self._gone[one.cover.identity] = last if before is None else before.merged(last)
        self._live = kept


def _is_loaded(prog_id: int) -> bool:
    try:
        fd, _ = bpf(Cmd.PROG_GET_FD_BY_ID, id=prog_id)
    except OSError as error:
        return error.errno != errno.ENOENT
    Handle(fd).close()
    return True
