"""Choose in front of which instruction the values are taken, and where others wait meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.patch import PatchList

from ..sites import place_of
from .emit import CLOBBERED, Saves
from .mapping import HEAD, WORD
from .places import TraceSpot
from .state import TraceState


@dataclass(frozen=True, slots=True)
class TracePlan:
    """How to do it at one place.

    Attributes:
        node: in front of which the code goes.
        is_call: only what calls the function runs it, not what jumps to its start.
        saves: where values are meanwhile.
    """

    node: int
    is_call: bool
    saves: Saves


class TracePlanner:
    """Plans places.

    Args:
        patches: the list.
        state: what is known of its code.
    """

    def __init__(self, patches: PatchList, state: TraceState) -> None:
        self._patches = patches
        self._state = state

    def plan(self, spot: TraceSpot, registers: tuple[int, ...], *, has_record: bool) -> TracePlan:
        """How to take registers' values at a place.

        Raises:
            OptionError: a pass took the instruction away, or a register has no value there.
            UnsupportedError: there is no room for it, there or anywhere in the block.
        """
        slot = self._slot(spot)
        missing = [reg for reg in registers if reg not in (isa.R10, *self.known(spot))]
        if missing:
            names = ", ".join(f"r{register}" for register in self.known(spot)) or "none"
            raise OptionError(
                f"{place_of(self._patches, self._state.view, slot)}: r{missing[0]} does not "
                f"certainly have a value here; those that do are: {names}"
            )
        wrong = ""
        for one in self._candidates(slot, spot, registers):
            found = self._saves(one, registers, has_record=has_record)
            if isinstance(found, Saves):
                node = int(self._state.view.node[one])
                return TracePlan(node, spot.is_call and one == slot, found)
            wrong = wrong or found
        raise UnsupportedError(
            f"{place_of(self._patches, self._state.view, slot)}: nothing can be traced here, nor "
            f"anywhere in this block where {_same(registers)}: {wrong}"
        )

    def known(self, spot: TraceSpot) -> tuple[int, ...]:
        """The registers, R0 to R9, that certainly have a value at a place."""
        mask = self._state.known(self._slot(spot))
        return tuple(register for register in range(isa.R10) if mask >> register & 1)

    def _slot(self, spot: TraceSpot) -> int:
        """Where a place of the original program is now."""
        at = np.flatnonzero(self._state.view.node == spot.slot)
        if not at.size:
            raise OptionError(
                f"{self._patches.program.where(spot.slot)} is gone: an earlier pass of the "
                "pipeline took it out; trace first"
            )
        return int(at[0])

    def _candidates(self, slot: int, spot: TraceSpot, registers: tuple[int, ...]) -> list[int]:
        """Slots of the block where the registers have the same values, the nearest first."""
        state = self._state
        if spot.is_call and state.is_jumped_to(slot):
            return [slot]
        block = state.block(slot)
        first, last = int(state.blocks.start[block]), int(state.blocks.last[block])
        changes = np.flatnonzero(state.writes[first : last + 1] & _mask(registers)) + first
        low = int(max((one + 1 for one in changes if one < slot), default=first))
        high = int(min((one for one in changes if one >= slot), default=last))
        nodes = state.view.node[low : high + 1]
        ours = np.flatnonzero((nodes >= 0) & (nodes < state.view.n_original)) + low
        return sorted(ours.tolist(), key=lambda one: (abs(one - slot), one > slot))

    def _saves(self, slot: int, registers: tuple[int, ...], *, has_record: bool) -> Saves | str:
        """Where values wait in front of an instruction, or why they cannot."""
        wrong = self._state.obstacle(slot)
        if wrong:
            return wrong
        asked = _mask(registers)
        # What only the inserted code reads has to be there again in the next round of a loop.
        live = self._state.live(slot) | asked
        # A record has the values that are asked for anyway.
        lost = (live & ~asked if has_record else live) & CLOBBERED
        waiting = [register for register in range(isa.R6) if lost >> register & 1]
        spare = [reg for reg in range(isa.R6, isa.R10) if not live >> reg & 1]
        moved = dict(zip(waiting, spare, strict=False))
        rest = waiting[len(moved) :]
        n_record = HEAD + WORD * len(registers) if has_record else 0
        n_bytes = n_record + WORD * len(rest)
        bottom = self._state.home(slot, n_bytes) if n_bytes else 0
        if isinstance(bottom, str):
            return bottom
        spilled = {register: bottom - n_record - WORD * at for at, register in enumerate(rest)}
        return Saves(moved, spilled, bottom if has_record else 0, live)


def _mask(registers: tuple[int, ...]) -> int:
    return sum(1 << register for register in registers)


def _same(registers: tuple[int, ...]) -> str:
    if not registers:
        return "control comes by"
    names = ", ".join(f"r{register}" for register in registers)
    return f"{names} {'is' if len(registers) == 1 else 'are'} the same"
