"""How deep code reaches into its stack frames, and how much room is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

from .blocks import Blocks
from .stackreach import reach

STACK_BYTES: Final = 512
"""For the whole chain of calls."""
TAIL_CALL_BYTES: Final = 256
"""The same where the chain has a subprog in it and somebody makes tail calls."""
_ROUND: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class StackUse:
    """The stack frames of a view's subprogs.

    Attributes:
        deepest: (m,) bytes below R10 up to which a subprog is seen to reach.
        room: (m,) bytes that its frame may grow by, if no other one does, in any chain of
            calls; negative where a chain has too much already, or calls itself.
        is_known: (m,) whether all ways into the frame are understood: addresses are R10 plus
            constants, and none of them is given to a subprog or a callback.
    """

    deepest: Slots
    room: Slots
    is_known: Mask

    @classmethod
    def of(cls, view: CodeView, blocks: Blocks) -> Self:
        """The stack frames of a view.

        A frame that is not understood counts as far as it is: its room is a guess.

        Source: linux v6.18, kernel/bpf/verifier.c, check_max_stack_depth_subprog(): frames
        are rounded up, by 32 bytes at most, the chain has 512 bytes, and 256 in front of a
        subprog that makes tail calls.
        """
        found = reach(view, blocks)
        is_known = np.array([is_certain for _, is_certain in found], bool)
        deepest = np.array([depth for depth, _ in found], np.int32)
        return cls(deepest, stack_room(view, deepest.tolist()), is_known)


def stack_room(view: CodeView, deepest: list[int]) -> Slots:
    """(m,) what is left of the stack in the worst chain through each subprog."""
    is_live = view.ref_is_entry & (view.ref_target != LOST)
    caller = view.subprog_of(view.ref_slot[is_live]).tolist()
    callee = view.subprog_of(view.ref_target[is_live]).tolist()
    calls: list[set[int]] = [set() for _ in deepest]
    called_by: list[set[int]] = [set() for _ in deepest]
    for one, other in zip(caller, callee, strict=True):
        calls[one].add(other)
        called_by[other].add(one)
    frame = [max(-(-depth // _ROUND) * _ROUND, _ROUND) for depth in deepest]
    below, above = _heaviest(calls, frame), _heaviest(called_by, frame)
    insns = view.insns
    makes_tail_calls = isa.is_helper_call(insns) & (insns["imm"] == isa.HELPER_IDS["tail_call"])
    limit = TAIL_CALL_BYTES if makes_tail_calls.any() and len(deepest) > 1 else STACK_BYTES
    room = [limit - (above[m] + below[m] - 2 * frame[m]) - depth for m, depth in enumerate(deepest)]
    return np.array(room, np.int32)


_ENDLESS: Final = 1 << 20


def _heaviest(edges: list[set[int]], weight: list[int]) -> list[int]:
    """The weight of the heaviest chain from each on, itself included."""
    out = weight.copy()
    # A chain without repetition ends after so many rounds; one that goes on is a recursion.
    for _ in edges:
        new = [own + max((out[to] for to in edges[m]), default=0) for m, own in enumerate(weight)]
        if new == out:
            return out
        out = [min(value, _ENDLESS) for value in new]
    return [_ENDLESS if edges[m] else own for m, own in enumerate(out)]
