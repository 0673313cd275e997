"""Which bytes of a stack frame will be read."""

from __future__ import annotations

from typing import Final

import numpy as np

from .stackreach import FrameWalks
from .stackwalk import WalkStep

WORD: Final = 8
FRAME_BYTES: Final = 512
_WHOLE_WORD: Final = (1 << WORD) - 1
ALL_BYTES: Final = (1 << FRAME_BYTES) - 1


class FrameLiveness:
    """Bytes of one subprog's frame that are read before they are written.

    In plain Python, at every instruction, until nothing changes any more::

        after[i] = union of before[j] for all j that may run next
        before[i] = (after[i] & ~writes[i]) | reads[i]

    Args:
        walks: of the view.
        subprog: index into the view's ``starts``.
    """

    def __init__(self, walks: FrameWalks, subprog: int) -> None:
        blocks = walks.blocks
        self._first = int(np.searchsorted(blocks.subprog, subprog))
        stop = int(np.searchsorted(blocks.subprog, subprog, "right"))
        self._start: list[int] = blocks.start[self._first : stop].tolist()
        self._steps = walks.steps(subprog)
        self._held = 0
        for steps in self._steps:
            for step in steps:
                self._held |= step.holds
        indirect = [goal - self._first for goal in blocks.indirect.get(subprog, [])]
        after: list[list[int]] = []
        for at, (falls, jump, goes) in enumerate(
            zip(
                blocks.falls[self._first : stop].tolist(),
                blocks.jump[self._first : stop].tolist(),
                blocks.is_indirect[self._first : stop].tolist(),
                strict=True,
            )
        ):
            goals = [at + 1] if falls else []
            goals += [jump - self._first] if jump >= 0 else []
            goals += indirect if goes else []
            after.append([goal for goal in goals if 0 <= goal < len(self._steps)])
        self._after = self._solve(after)

    def before(self, slot: int) -> int:
        """The bytes that are read later, in front of an instruction, or held by the kernel.

        Bit n is for the byte at R10 - 512 + n.
        """
        at = int(np.searchsorted(self._start, slot, "right")) - 1
        live = self._after[at]
        for step in reversed(self._steps[at]):
            if step.slot < slot:
                break
            live = (live & ~step.writes) | step.reads
        return live | self._held

    def unread_writes(self) -> list[int]:
        """Slots of instructions that certainly write bytes of the frame, and of which none is read.

        They may do more than that: atomic operations and calls are not among them only where
        they read what they write. What such an instruction would read counts as not read.
        """
        out: list[int] = []
        for steps, after in zip(self._steps, self._after, strict=True):
            live = after
            for step in reversed(steps):
                is_certain = step.writes and step.writes == step.touches
                if is_certain and not step.writes & (live | self._held):
                    out.append(step.slot)
                else:
                    live = (live & ~step.writes) | step.reads
        return out

    def _solve(self, after: list[list[int]]) -> list[int]:
        """What is live after each block."""
        sums = [_sum(steps) for steps in self._steps]
        before = [0] * len(sums)
        out = [0] * len(sums)
        comes_from: list[list[int]] = [[] for _ in sums]
        for block, goals in enumerate(after):
            for goal in goals:
                comes_from[goal].append(block)
        todo = list(range(len(sums)))
        is_queued = bytearray(b"\1" * len(sums))
        while todo:
            block = todo.pop()
            is_queued[block] = 0
            live = 0
            for goal in after[block]:
                live |= before[goal]
            out[block] = live
            reads, writes = sums[block]
            live = (live & ~writes) | reads
            if live != before[block]:
                before[block] = live
                for one in comes_from[block]:
                    if not is_queued[one]:
                        is_queued[one] = 1
                        todo.append(one)
        return out


def dead_words(live: int, depth: int) -> list[int]:
    """Words of a frame of which no byte is live: bytes below R10, 8-aligned, the lowest first."""
    most = min(-(-depth // WORD) * WORD, FRAME_BYTES)
    return [
        below for below in range(most, 0, -WORD) if not live >> FRAME_BYTES - below & _WHOLE_WORD
    ]


def _sum(steps: list[WalkStep]) -> tuple[int, int]:
    """What a block reads before it writes it, and what it writes before it reads it."""
    reads = writes = 0
    for step in reversed(steps):
        reads = (reads & ~step.writes) | step.reads
        writes = (writes | step.writes) & ~step.reads
    return reads, writes
