"""Which registers every path has set: a forward data flow, on one bit a register."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.helpers import returns_nothing
from bpfpatch.patch import CodeView

from .backward import Masks
from .blocks import Blocks

_R0: Final = np.uint16(1 << 0)
_R10: Final = np.uint16(1 << 10)
_ALL: Final = 0xFFF


def set_before(view: CodeView, blocks: Blocks, writes: Masks, given: Masks) -> Masks:
    """Find the registers that are set before each instruction, on every path to it.

    A call leaves R1 to R5 unset, and R0 too where it might return nothing:
    subprogs, kernel functions and some helpers.

    Args:
        view: the code.
        blocks: its blocks.
        writes: (n,) registers that each instruction defines or destroys.
        given: (m,) registers that are set on entry of each subprog.

    Returns:
        (n,) masks, bit r for register r. In code that nothing leads to, all bits.

    Source: linux v6.18, kernel/bpf/verifier.c, clear_caller_saved_regs(), check_helper_call(),
    check_kfunc_call() and prepare_func_exit().
    """
    sets, clears = _effects(view, writes)
    gen, kill, event_at = _summaries(view, blocks, sets, clears)
    into = _fixpoint(view, blocks, given, gen, kill)
    return _spread(view, blocks, sets, event_at, into)


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
    view: CodeView, blocks: Blocks, sets: Masks, clears: Masks
) -> tuple[list[int], list[int], Events]:
    """What is set, and unset, after each block; and the slots at which that happens."""
    gen = np.zeros(len(blocks), np.uint16)
    kill = np.zeros(len(blocks), np.uint16)
    behind = np.append(blocks.start[1:], len(view))[: len(blocks)]
    event_at: Events = []
    for register in range(isa.R10):
        at = np.flatnonzero((sets | clears) >> register & 1)
        event_at.append((register, at))
        if not at.size:
            continue
        latest = np.searchsorted(at, behind) - 1
        is_here = (latest >= 0) & (at[latest] >= blocks.start)
        is_set = (sets[at[latest]] >> register & 1).astype(bool)
        gen |= (is_here & is_set).astype(np.uint16) << register
        kill |= (is_here & ~is_set).astype(np.uint16) << register
    return gen.tolist(), kill.tolist(), event_at


def _fixpoint(
    view: CodeView, blocks: Blocks, given: Masks, gen: list[int], kill: list[int]
) -> list[int]:
    """What is set before each block: what all paths to it agree on."""
    n_blocks = len(blocks)
    falls, jump, owner = blocks.falls.tolist(), blocks.jump.tolist(), blocks.subprog.tolist()
    into = [_ALL] * n_blocks
    entry = np.searchsorted(blocks.start, view.starts).tolist()
    for block, mask in zip(entry, given.tolist(), strict=True):
        into[block] = int(_R10) | mask
    is_indirect = blocks.is_indirect.tolist()
    todo = list(range(n_blocks - 1, -1, -1))
    is_queued = bytearray(b"\1" * n_blocks)
    while todo:
        block = todo.pop()
        is_queued[block] = 0
        out = (into[block] & ~kill[block]) | gen[block]
        goals: Iterable[int] = (block + 1 if falls[block] else n_blocks, jump[block])
        if is_indirect[block]:
            goals = (*goals, *blocks.indirect.get(owner[block], ()))
        for goal in goals:
            if 0 <= goal < n_blocks and into[goal] & ~out:
                into[goal] &= out
                if not is_queued[goal]:
                    is_queued[goal] = 1
                    todo.append(goal)
    return into


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
