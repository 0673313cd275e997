"""What an analysis of values writes down of each instruction."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.facts.columns import MANY, NONE, MemType

from .values import LEGACY, UNTRUSTED

_OPEN: Final = -3
"""No path has come by yet."""

_BTF_ID, _PROBE, _MEM = int(MemType.BTF_ID), int(MemType.BTF_ID_PROBE), int(MemType.MEM)
_LAST: Final = int(max(MemType))
_OBJECTS: Final = frozenset({_BTF_ID, _PROBE})
_HAS_ID: Final = _OBJECTS | {int(MemType.MAP_VALUE), int(MemType.MAP_KEY)}


class Findings:
    """Columns in the making.

    Attributes:
        seen: a byte a slot.
        mem_type: `MemType` of each access.
        mem_id: see `bpfpatch.facts.columns`.
        call_map: the same.
        call_key: the same.
        loops: of bpf_loop calls that can be inlined, the callback's slot.
        depth: bytes of stack by subprog.
    """

    __slots__ = ("call_key", "call_map", "depth", "loops", "mem_id", "mem_type", "seen")

    def __init__(self, n_slots: int, n_subprogs: int) -> None:
        self.seen = bytearray(n_slots)
        self.mem_type = bytearray(n_slots)
        self.mem_id = [_OPEN] * n_slots
        self.call_map: dict[int, int] = {}
        self.call_key: dict[int, int] = {}
        self.loops: dict[int, int] = {}
        self.depth = [0] * n_subprogs

    def access(self, slot: int, kind: int, ref: int, trust: int) -> None:
        """An instruction goes through a pointer.

        Where kernel objects of different trust meet, the load becomes a probing one;
        otherwise what came first counts.

        Source: linux v6.18, kernel/bpf/verifier.c, save_aux_ptr_type().
        """
        if kind == _BTF_ID and trust in (LEGACY, UNTRUSTED):
            kind = _PROBE
        elif kind == _MEM and trust == UNTRUSTED:
            kind, ref = _PROBE, NONE
        elif kind > _LAST:
            return
        before = self.mem_type[slot]
        ident = ref if kind in _HAS_ID else NONE
        if not before:
            self.mem_type[slot], self.mem_id[slot] = kind, ident
            return
        if before != kind and (before in _OBJECTS or kind in _OBJECTS):
            self.mem_type[slot] = _PROBE
        if self.mem_id[slot] != ident:
            self.mem_id[slot] = MANY

    def forget(self, start: int, end: int) -> None:
        """Instructions are about to be reached with anything: nothing is the same each time."""
        for slot in range(start, end):
            if self.mem_id[slot] not in (_OPEN, NONE):
                self.mem_id[slot] = MANY
            if slot in self.call_map:
                self.call_map[slot] = MANY
            if slot in self.call_key:
                self.call_key[slot] = NONE
            if slot in self.loops:
                self.loops[slot] = NONE

    def mem_ids(self) -> NDArray[np.int64]:
        """(n,) the column mem_id."""
        ids = np.array(self.mem_id, np.int64)
        ids[ids == _OPEN] = NONE
        return ids

    def use_map(self, slot: int, index: int | None) -> None:
        """A helper is called with a map."""
        index = MANY if index is None else index
        if self.call_map.setdefault(slot, index) != index:
            self.call_map[slot] = MANY

    def use_key(self, slot: int, key: int | None) -> None:
        """A tail call has this index."""
        key = NONE if key is None else key
        if self.call_key.setdefault(slot, key) != key:
            self.call_key[slot] = NONE

    def loop(self, slot: int, callback: int | None) -> None:
        """bpf_loop is called with this callback; None where it cannot be inlined."""
        target = NONE if callback is None else callback
        if self.loops.setdefault(slot, target) != target:
            self.loops[slot] = NONE

    def reach(self, subprog: int, byte_off: int) -> None:
        """A subprog's stack is used from this place on, which is below 0."""
        depth = (-byte_off + 7) & ~7
        self.depth[subprog] = max(depth, self.depth[subprog])
