"""Which registers every path has set, and which none has: a forward data flow, a bit a register."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.helpers import returns_nothing
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Slots

from .backward import Masks
from .blocks import Blocks

_R0: Final = np.uint16(1 << 0)
_R10: Final = np.uint16(1 << 10)
_ALL: Final = 0x1FFF


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """Calls that decide what the called subprogs are given.

    Attributes:
        slot: (k,) the calls, ascending.
        callee: (k,) the subprog that each calls.
        least: (m,) registers that a subprog has whatever its calls are given.
    """

    slot: Slots
    callee: Slots
    least: Masks


def set_before(
    view: CodeView, blocks: Blocks, writes: Masks, given: Masks, calls: Calls | None = None
) -> Masks:
    """Find the registers that are set before each instruction, on every path to it.

    A call leaves R1 to R5 unset, and R0 too where it might return nothing:
    subprogs, kernel functions and some helpers.

    Args:
        view: the code.
        blocks: its blocks.
        writes: (n,) registers that each instruction defines or destroys.
        given: (m,) registers that are set on entry of each subprog.
        calls: what is unset at one of these is not given to the subprog that it calls either.

    Returns:
        (n,) masks, bit r for register r. In code that nothing leads to, all bits.

    Source: linux v6.18, kernel/bpf/verifier.c, clear_caller_saved_regs(), check_helper_call(),
    check_kfunc_call() and prepare_func_exit().
    """
    return _agreed(view, blocks, *_effects(view, writes), given, calls)


def unset_before(
    view: CodeView, blocks: Blocks, writes: Masks, unset: Masks, calls: Calls | None = None
) -> Masks:
    """Find the registers that are set on no path to an instruction: `set_before` turned round.

    Args:
        view: the code.
        blocks: its blocks.
        writes: (n,) registers that each instruction defines or destroys.
        unset: (m,) registers that are not set on entry of each subprog from anywhere else than
            the calls.
        calls: what is set at one of these is given to the subprog that it calls; their ``least``
            is what a subprog is never given.

    Returns:
        (n,) masks, bit r for register r. In code that nothing leads to, all bits.
    """
    sets, clears = _effects(view, writes)
    return _agreed(view, blocks, clears, sets, unset, calls)


def _agreed(
    view: CodeView, blocks: Blocks, sets: Masks, clears: Masks, given: Masks, calls: Calls | None
) -> Masks:
    """(n,) what all paths to an instruction have set last, and not cleared."""
    event_at = [(reg, np.flatnonzero((sets | clears) >> reg & 1)) for reg in range(isa.R10)]
    ends = np.append(blocks.start[1:], len(view))[: len(blocks)]
    gen, kill = _summaries(blocks.start, ends, sets, event_at)
    into = _Walk(view, blocks, given, gen, kill)
    if calls is not None:
        block = np.searchsorted(blocks.start, calls.slot, side="right") - 1
        before = _summaries(blocks.start[block], calls.slot, sets, event_at)
        into.add_calls(block.tolist(), calls, *before)
    return _spread(view, blocks, sets, event_at, into.solved())


def _effects(view: CodeView, writes: Masks) -> tuple[Masks, Masks]:
    """(n,) registers that each sets, and those that it leaves unset."""
    insns = view.insns
    sets = writes.copy()
    clears = np.zeros_like(sets)
    calls = np.flatnonzero(isa.is_call(insns) | isa.is_packet_load(insns))
    has_result = np.ones(calls.size, bool)
    some = insns[calls]
    is_helper = isa.is_helper_call(some)
    has_result[is_helper] = ~returns_nothing(some[is_helper])
    has_result[~is_helper & isa.is_call(some)] = False
    sets[calls] = np.where(has_result, _R0, 0)
    clears[calls] = np.uint16(isa.CALLER_SAVED) & ~sets[calls]
    return sets, clears


Events = list[tuple[int, np.ndarray[tuple[int], np.dtype[np.intp]]]]


def _summaries(
    starts: Slots, ends: Slots, sets: Masks, event_at: Events
) -> tuple[list[int], list[int]]:
    """What is set, and unset, from each start on up to its end; k of each."""
    gen = np.zeros(len(starts), np.uint16)
    kill = np.zeros(len(starts), np.uint16)
    for register, at in event_at:
        if not at.size:
            continue
        latest = np.searchsorted(at, ends) - 1
        is_here = (latest >= 0) & (at[latest] >= starts)
        is_set = (sets[at[latest]] >> register & 1).astype(bool)
        gen |= (is_here & is_set).astype(np.uint16) << register
        kill |= (is_here & ~is_set).astype(np.uint16) << register
    return gen.tolist(), kill.tolist()


class _Walk:
    """What is set before each block: what all paths to it agree on."""

    def __init__(
        self, view: CodeView, blocks: Blocks, given: Masks, gen: list[int], kill: list[int]
    ) -> None:
        self._blocks = blocks
        self._gen, self._kill = gen, kill
        self._entry = np.searchsorted(blocks.start, view.starts).tolist()
        self._given = given.tolist()
        self._least = [0] * len(self._given)
        self._calls: dict[int, list[tuple[int, int, int]]] = {}
        self._into = [_ALL] * len(blocks)
        for block, mask in zip(self._entry, self._given, strict=True):
            self._into[block] = int(_R10) | mask
        self._todo = list(range(len(blocks) - 1, -1, -1))
        self._is_queued = bytearray(b"\1" * len(blocks))

    def add_calls(self, block: list[int], calls: Calls, gen: list[int], kill: list[int]) -> None:
        """Take calls into account: the block of each, and what is set and unset in front of it."""
        self._least = calls.least.tolist()
        for at, *call in zip(block, gen, kill, calls.callee.tolist(), strict=True):
            self._calls.setdefault(at, []).append((call[0], call[1], call[2]))

    def solved(self) -> list[int]:
        """The masks, by block. Each block is looked at again only where its own has lost a bit."""
        blocks, into = self._blocks, self._into
        n_blocks = len(into)
        falls, jump, owner = blocks.falls.tolist(), blocks.jump.tolist(), blocks.subprog.tolist()
        is_indirect = blocks.is_indirect.tolist()
        while self._todo:
            block = self._todo.pop()
            self._is_queued[block] = 0
            out = (into[block] & ~self._kill[block]) | self._gen[block]
            goals: Iterable[int] = (block + 1 if falls[block] else n_blocks, jump[block])
            if is_indirect[block]:
                goals = (*goals, *blocks.indirect.get(owner[block], ()))
            for goal in goals:
                if 0 <= goal < n_blocks:
                    self._lose(goal, out)
            for gen, kill, callee in self._calls.get(block, ()):
                at_call = (into[block] & ~kill) | gen
                self._given[callee] &= at_call | self._least[callee]
                self._lose(self._entry[callee], int(_R10) | self._given[callee])
        return into

    def _lose(self, block: int, mask: int) -> None:
        if not self._into[block] & ~mask:
            return
        self._into[block] &= mask
        if not self._is_queued[block]:
            self._is_queued[block] = 1
            self._todo.append(block)


def _spread(
    view: CodeView, blocks: Blocks, sets: Masks, event_at: Events, into: list[int]
) -> Masks:
    """From the blocks' starts to all that follows."""
    out = np.full(len(view), _R10, np.uint16)
    entering = np.array(into, np.uint16)
    is_start = np.zeros(len(view) + 1, bool)
    is_start[blocks.start] = True
    is_place = is_start.copy()
    for register, at in event_at:
        bit = np.uint16(1 << register)
        # An event shows after its instruction, a block's start at once and before all else.
        value = np.zeros(len(view) + 1, np.uint16)
        value[at + 1] = sets[at] & bit
        value[blocks.start] = entering & bit
        is_place[:] = is_start
        is_place[at + 1] = True
        place = np.flatnonzero(is_place[:-1])
        out |= np.repeat(value[place], np.diff(place, append=len(view)))
    return out
