"""How deep code reaches into its stack frames, and how much room is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

from .blocks import Blocks
from .stackreach import FrameWalks

STACK_BYTES: Final = 512
"""For the whole chain of calls."""
TAIL_CALL_BYTES: Final = 256
"""What the callers of a subprog that makes tail calls must have less than."""
ROUND_INTERPRETED, ROUND_COMPILED = 32, 16
"""What a frame is rounded up to, without the JIT compiler and with it."""


@dataclass(frozen=True, slots=True, eq=False)
class StackUse:
    """The stack frames of a view's subprogs.

    Attributes:
        deepest: (m,) bytes below R10 up to which a subprog is seen to reach.
        room: (m,) bytes that its frame may grow by, if no other one does, in any chain of
            calls; negative where a chain has too much already, or calls itself.
        is_known: (m,) whether all addresses in the frame are understood, so that nothing
            is below ``deepest``.
        walks: what the subprogs do with their frames, byte by byte.
    """

    deepest: Slots
    room: Slots
    is_known: Mask
    walks: FrameWalks

    @classmethod
    def of(cls, view: CodeView, blocks: Blocks, checked: Mask | None = None) -> Self:
        """The stack frames of a view.

        A frame that is not understood counts as far as it is: its room is a guess.

        Args:
            view: the code.
            blocks: its blocks.
            checked: (m,) functions that the verifier checks alone, by their types.
        """
        walks = FrameWalks(view, blocks, checked)
        found = [walks.depth(m) for m in range(len(view.starts))]
        is_known = np.array([is_certain for _, is_certain in found], bool)
        deepest = np.array([depth for depth, _ in found], np.int32)
        return cls(deepest, stack_room(view, deepest.tolist()), is_known, walks)


def stack_room(view: CodeView, deepest: list[int], rounded_to: int = ROUND_INTERPRETED) -> Slots:
    """(m,) what is left of the stack in the worst chain through each subprog.

    Args:
        view: the code.
        deepest: m bytes of its frames.
        rounded_to: what the kernel rounds a frame up to.

    Source: linux v6.18, kernel/bpf/verifier.c, check_max_stack_depth_subprog() and
    round_up_stack_depth(): a chain of calls has 512 bytes, and in front of a subprog that makes
    tail calls less than 256.
    """
    is_live = view.ref_is_entry & (view.ref_target != LOST)
    caller = view.subprog_of(view.ref_slot[is_live]).tolist()
    callee = view.subprog_of(view.ref_target[is_live]).tolist()
    calls: list[set[int]] = [set() for _ in deepest]
    called_by: list[set[int]] = [set() for _ in deepest]
    for one, other in zip(caller, callee, strict=True):
        calls[one].add(other)
        called_by[other].add(one)
    frame = [-(-max(depth, 1) // rounded_to) * rounded_to for depth in deepest]
    below, above = _heaviest(calls, frame), _heaviest(called_by, frame)
    left = [STACK_BYTES - (above[m] + below[m] - frame[m]) for m in range(len(frame))]
    insns = view.insns
    tail_calls = isa.is_helper_call(insns) & (insns["imm"] == isa.HELPER_IDS["tail_call"])
    leaving = {m for m in _owners(view, tail_calls) if called_by[m]}
    if leaving:
        most = (TAIL_CALL_BYTES - 1) // rounded_to * rounded_to
        before = _before(calls, frame, leaving)
        for m, weight in enumerate(before):
            if weight is not None:
                left[m] = min(left[m], most - (above[m] + weight - frame[m]))
    room = [frame[m] + left[m] - depth for m, depth in enumerate(deepest)]
    return np.array(room, np.int32)


def _owners(view: CodeView, is_some: Mask) -> list[int]:
    """Subprogs that have such instructions."""
    slots = np.flatnonzero(is_some).astype(np.int32)
    found: list[int] = np.unique(view.subprog_of(slots)).tolist() if slots.size else []
    return found


_ENDLESS: Final = 1 << 20


def _heaviest(edges: list[set[int]], weight: list[int]) -> list[int]:
    """The weight of the heaviest chain from each on, itself included; endless in a recursion."""
    out = [_ENDLESS] * len(weight)
    for m in _ends_first(edges):
        out[m] = min(weight[m] + max((out[to] for to in edges[m]), default=0), _ENDLESS)
    return out


def _before(calls: list[set[int]], weight: list[int], goals: set[int]) -> list[int | None]:
    """The heaviest chain from each, itself included, up to a caller of one of the goals."""
    reaching = _reaching(calls, goals)
    out: list[int | None] = [_ENDLESS if m in reaching else None for m in range(len(weight))]
    for m in _ends_first(calls):
        after = [] if goals.isdisjoint(calls[m]) else [0]
        after += [found for to in calls[m] if (found := out[to]) is not None]
        out[m] = min(weight[m] + max(after), _ENDLESS) if after else None
    return out


def _ends_first(edges: list[set[int]]) -> list[int]:
    """Each after all that it has an edge to; without those from which a circle can be reached."""
    into = _turned(edges)
    n_open = [len(those) for those in edges]
    order = [m for m, count in enumerate(n_open) if not count]
    for m in order:  # it grows meanwhile
        for source in into[m]:
            n_open[source] -= 1
            if not n_open[source]:
                order.append(source)
    return order


def _reaching(edges: list[set[int]], goals: set[int]) -> set[int]:
    """All that have a path of at least one edge to a goal."""
    into = _turned(edges)
    out: set[int] = set()
    work = list(goals)
    while work:
        new = into[work.pop()] - out
        out |= new
        work += new
    return out


def _turned(edges: list[set[int]]) -> list[set[int]]:
    """The same edges, the other way round."""
    into: list[set[int]] = [set() for _ in edges]
    for m, those in enumerate(edges):
        for to in those:
            into[to].add(m)
    return into
