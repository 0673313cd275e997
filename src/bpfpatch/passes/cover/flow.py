"""The flow graph of each function: what can follow what, and what it takes to count it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.errors import SlotError
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import LOST, Slots

from ..sites import indirect_targets, landing_pads, place_of

OUTSIDE: Final = -1
"""Where a function is called from, and where it goes when it is done."""


class Way(IntEnum):
    """How control goes from one block to another."""

    FALL = 0  # to the next one
    JUMP = 1  # as the last instruction says
    INDIRECT = 2  # through a jump table
    ENTER = 3  # a call of the function, or what unwinds it
    LEAVE = 4  # an exit
    VANISH = 5  # a call that does not come back: a tail call, an exception


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from a block to another one.

    Attributes:
        way: how.
        source: block number, or OUTSIDE.
        goal: block number, or OUTSIDE.
    """

    way: Way
    source: int
    goal: int


@dataclass(frozen=True, slots=True)
class Flow:
    """One function.

    Attributes:
        subprog: index into the view's ``starts``.
        blocks: its blocks' numbers, a range.
        edges: all ways between them, in and out.
        depth: loops around each block, estimated by the jumps backwards over it.
    """

    subprog: int
    blocks: range
    edges: tuple[Edge, ...]
    depth: tuple[int, ...]


def flows(view: CodeView, patches: PatchList, throws: Slots) -> tuple[Blocks, list[Flow]]:
    """The blocks of a list, which end at calls that may not return, and each function's flow.

    Raises:
        SlotError: a jump leaves its function, so that no count follows from others.
    """
    pads = landing_pads(patches.program, view)
    leaves = may_vanish(view, np.concatenate([throws, pads]))
    before_pads = np.concatenate([leaves, pads - 1])
    blocks = Blocks.of(view, indirect_targets(patches.program, view), before_pads)
    vanishes = np.isin(blocks.last, leaves)
    edges: list[list[Edge]] = [[] for _ in range(len(view.starts))]
    is_exit = isa.is_exit(view.insns)[blocks.last]
    rows = zip(
        blocks.subprog.tolist(),
        blocks.falls.tolist(),
        blocks.jump.tolist(),
        blocks.is_indirect.tolist(),
        is_exit.tolist(),
        vanishes.tolist(),
        strict=True,
    )
    subprog_of = blocks.subprog.tolist()
    for block, (owner, falls, jump, is_indirect, exits, vanish) in enumerate(rows):
        mine = edges[owner]
        # A function whose last call never returns ends in it: nothing falls into the next one.
        if falls and block + 1 < len(blocks) and subprog_of[block + 1] == owner:
            mine.append(Edge(Way.FALL, block, block + 1))
        if jump != LOST and subprog_of[jump] != owner:
            raise SlotError(
                place_of(patches, view, int(blocks.last[block])),
                "jumps into another function, which the kernel refuses; nothing can be counted",
            )
        if jump != LOST:
            mine.append(Edge(Way.JUMP, block, jump))
        if is_indirect:
            goals = blocks.indirect.get(owner, ())
            mine += [Edge(Way.INDIRECT, block, goal) for goal in goals]
        if exits:
            mine.append(Edge(Way.LEAVE, block, OUTSIDE))
        if vanish:
            mine.append(Edge(Way.VANISH, block, OUTSIDE))
    for block in np.searchsorted(blocks.start, np.unique(pads)).tolist():
        edges[subprog_of[block]].append(Edge(Way.ENTER, OUTSIDE, block))
    first = np.searchsorted(blocks.start, view.starts).tolist()
    bounds = [*first, len(blocks)]
    out = []
    for subprog, mine in enumerate(edges):
        span = range(bounds[subprog], bounds[subprog + 1])
        entry = Edge(Way.ENTER, OUTSIDE, bounds[subprog])
        out.append(Flow(subprog, span, (entry, *mine), _depth(span, mine)))
    return blocks, out


def may_vanish(view: CodeView, throws: Slots) -> Slots:
    """(k,) slots of calls that may never come back.

    A tail call that succeeds does not, and a load of packet bytes that are not
    there ends the function, too. An exception takes all functions with
    it that lead to where it is thrown, so in a program that throws any call may.

    Args:
        view: the code.
        throws: what there is of calls of bpf_throw and of landing pads.
    """
    insns = view.insns
    vanishes = isa.is_packet_load(insns)
    vanishes |= isa.is_helper_call(insns) & (insns["imm"] == isa.HELPER_IDS["tail_call"])
    if throws.size:
        vanishes |= isa.is_call(insns)
    return np.flatnonzero(vanishes).astype(np.int32)


def _depth(span: range, edges: list[Edge]) -> tuple[int, ...]:
    depth = [0] * (len(span) + 1)
    for edge in edges:
        if OUTSIDE not in (edge.source, edge.goal) and edge.goal <= edge.source:
            depth[edge.goal - span.start] += 1
            depth[edge.source + 1 - span.start] -= 1
    out, now = [], 0
    for change in depth[:-1]:
        now += change
        out.append(now)
    return tuple(out)
