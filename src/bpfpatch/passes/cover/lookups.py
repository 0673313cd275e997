"""Where a function finds this processor's counters: at its start, or after its last stack argument.

A function must load its arguments from the sixth on before it calls anything, see
`bpfpatch.dataflow.stackargs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.stackargs import passing
from bpfpatch.program.types import Mask

from ..scratch import fastcall_sequences
from .plan import CoveredCode

_KEPT: Final[tuple[int, ...]] = (isa.R6, isa.R7, isa.R8, isa.R9)


@dataclass(frozen=True, slots=True)
class LookupPlace:
    """A place in a function's first block.

    Attributes:
        slot: it is in front of this one.
        is_start: whether that is the function's start, which only calls run, not jumps to it.
        live: those of R0 to R5 that are read later.
        free: those of R6 to R9 that are not.
    """

    slot: int
    is_start: bool
    live: list[int]
    free: list[int]


class LookupPlaces:
    """Finds places.

    Args:
        code: the code.
    """

    def __init__(self, code: CoveredCode) -> None:
        self._code = code
        view, blocks = code.view, code.blocks
        self._passing = passing(view, blocks)
        is_jump = ~view.ref_is_entry
        self._is_jumped_to = np.zeros(len(view) + 1, bool)
        self._is_jumped_to[view.ref_target[is_jump]] = True
        self._can_hold: Mask = view.node >= 0
        starts = np.flatnonzero(self._can_hold).astype(np.int32)
        for begin, end in fastcall_sequences(view.insns, starts):
            self._can_hold[begin : end + 1] = False

    def of(self, subprog: int) -> LookupPlace | str:
        """A function's place, or why it has none.

        Args:
            subprog: index into the view's ``starts``.
        """
        code = self._code
        start = int(code.view.starts[subprog])
        if not self._passing[start]:
            return LookupPlace(start, True, code.scratch.arguments(start), list(_KEPT))
        block = int(np.searchsorted(code.blocks.start, start))
        last = int(code.blocks.last[block])
        fits = ~self._passing[start : last + 1] & self._can_hold[start : last + 1]
        if self._is_jumped_to[start] or not fits.any():
            return "it reads arguments passed by R11 beyond its first block, and before any call"
        for slot in (start + np.flatnonzero(fits)).tolist():
            mask = code.scratch.live(slot)
            live = [reg for reg in range(isa.R6) if mask >> reg & 1]
            free = [reg for reg in _KEPT if not mask >> reg & 1]
            if len(live) <= len(free) + 1 and (free or isa.R0 not in live):
                return LookupPlace(slot, False, live, free)
        return "it reads arguments passed by R11, and has no registers to look a map up then"
