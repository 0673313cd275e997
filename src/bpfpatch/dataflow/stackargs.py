"""Where a call that is put in would lose arguments passed by R11.

A call uses up what its caller has stored for it, whether it takes that many arguments or not; and
a function must load its own before it stores or calls anything.

Source: linux v7.2, kernel/bpf/verifier.c, invalidate_outgoing_stack_args() and
check_stack_arg_read().
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask

from .blocks import Blocks

Edges = Sequence[Sequence[int]]


def passing(view: CodeView, blocks: Blocks) -> Mask:
    """Find the places where no call can be put in.

    In plain Python, at every instruction, until nothing changes any more::

        stored[i + 1] = i stores or (stored[i] and not i calls)
        wanted[i] = i loads or (wanted[i + 1] and not i calls or stores)

    Args:
        view: the code.
        blocks: its blocks.

    Returns:
        (n,) whether, in front of each slot, an argument has been stored for a call that is still
        to come, or one of the function's own is still to be loaded.
    """
    which = isa.stack_args(view.insns)
    if not which.any():
        return np.zeros(len(view), bool)
    calls = isa.is_call(view.insns)
    after = _after(blocks)
    before: list[list[int]] = [[] for _ in after]
    for block, goals in enumerate(after):
        for goal in goals:
            before[goal].append(block)
    index = np.arange(len(view))
    block_of = np.searchsorted(blocks.start, index, side="right") - 1
    # The last event in front of each slot, and the first one at it or behind.
    stores = np.where(which < 0, 1, 0) - np.where(calls, 1, 0)
    last = np.maximum.accumulate(np.where(stores != 0, index, -1))
    last = np.append(-1, last[:-1])
    has_last = last >= blocks.start[block_of]
    stored = _spread(_ends(stores, blocks, -1), after)[block_of]
    stored = np.where(has_last, stores[last] > 0, stored)
    loads = np.where(which > 0, 1, 0) - np.where(calls | (which < 0), 1, 0)
    first = np.minimum.accumulate(np.where(loads != 0, index, len(view))[::-1])[::-1]
    bounds = np.append(blocks.start[1:], len(view))[block_of]
    has_first = first < bounds
    wanted = _spread(_ends(loads, blocks, 0), before)[block_of]
    wanted = np.where(has_first, loads[np.minimum(first, len(view) - 1)] > 0, wanted)
    out: Mask = stored | wanted
    return out


def _after(blocks: Blocks) -> list[list[int]]:
    """Where control goes from each block, in its subprog."""
    out = []
    rows = zip(
        blocks.falls.tolist(),
        blocks.jump.tolist(),
        blocks.is_indirect.tolist(),
        blocks.subprog.tolist(),
        strict=True,
    )
    for block, (falls, jump, is_indirect, owner) in enumerate(rows):
        goals = [block + 1] if falls and block + 1 < len(blocks) else []
        goals += [jump] if jump >= 0 else []
        goals += blocks.indirect.get(owner, []) if is_indirect else []
        out.append(goals)
    return out


def _ends(events: NDArray[np.int64], blocks: Blocks, which: int) -> list[int]:
    """By block what its first (0) or last (-1) event does: 1 sets, -1 clears, 0 for no event."""
    out = []
    bounds = [*blocks.start.tolist(), len(events)]
    for start, end in pairwise(bounds):
        found = events[start:end][np.flatnonzero(events[start:end])]
        out.append(0 if not found.size else int(found[which]))
    return out


def _spread(event: list[int], goals: Edges) -> Mask:
    """(b,) whether what sets something is passed on to a block without being cleared."""
    comes = [False] * len(event)
    todo = [block for block, one in enumerate(event) if one > 0]
    while todo:
        for goal in goals[todo.pop()]:
            if not comes[goal]:
                comes[goal] = True
                if event[goal] == 0:
                    todo.append(goal)
    return np.array(comes, bool)
