"""Which registers may be set. A register that no path initializes cannot be live."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.backward import Masks
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Slots

_R0: Final = 1 << isa.R0
_R1: Final = 1 << isa.R1
_CLEARED: Final = int(isa.ARGS)


class MaybeSet:
    """The registers that hold a value on some way to a place.

    An exit seems to read R0 where a function returns nothing, and a call of
    bpf_trace_printk() five arguments.

    Args:
        view: the code.
        blocks: its blocks.
        writes: (n,) registers that each instruction defines or destroys.
        programs: slots where a program starts, which is given R1 and no more.
    """

    def __init__(self, view: CodeView, blocks: Blocks, writes: Masks, programs: Slots) -> None:
        self._blocks = blocks
        self._writes = writes
        self._is_call = isa.is_call(view.insns) | isa.is_packet_load(view.insns)
        self._into = self._solve(view, set(programs.tolist()))

    def at(self, slot: int) -> int:
        """The mask in front of an instruction."""
        block = int(np.searchsorted(self._blocks.start, slot, side="right")) - 1
        return self._through(self._into[block], int(self._blocks.start[block]), slot)

    def _through(self, mask: int, first: int, behind: int) -> int:
        calls = np.flatnonzero(self._is_call[first:behind])
        if calls.size:
            last = first + int(calls[-1])
            early = int(np.bitwise_or.reduce(self._writes[first:last], initial=0))
            mask = (mask | early) & ~_CLEARED | _R0
            first = last + 1
        return mask | int(np.bitwise_or.reduce(self._writes[first:behind], initial=0))

    def _solve(self, view: CodeView, programs: set[int]) -> list[int]:
        """What is set in front of each block: what any way to it brings."""
        blocks = self._blocks
        bounds = [*blocks.start.tolist(), len(view)]
        falls, jump, owner = blocks.falls.tolist(), blocks.jump.tolist(), blocks.subprog.tolist()
        into = [0] * len(blocks)
        for start in view.starts.tolist():
            entry = int(np.searchsorted(blocks.start, start))
            into[entry] = _R1 if start in programs else _CLEARED
        todo = list(range(len(blocks) - 1, -1, -1))
        while todo:
            block = todo.pop()
            out = self._through(into[block], bounds[block], bounds[block + 1])
            goals = [block + 1] if falls[block] and block + 1 < len(blocks) else []
            if jump[block] >= 0:
                goals.append(jump[block])
            if blocks.is_indirect[block]:
                goals += blocks.indirect.get(owner[block], ())
            for goal in goals:
                if out & ~into[goal]:
                    into[goal] |= out
                    todo.append(goal)
        return into
