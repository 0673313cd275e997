"""What was counted of a function: blocks, edges and branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bpfpatch.passes.cover import Way


class BlockCount(NamedTuple):
    """How often a block ran.

    Attributes:
        start: its first slot in the original code.
        end: the slot after its last.
        times: how often, or None where that is not known.
    """

    start: int
    end: int
    times: int | None


class EdgeCount(NamedTuple):
    """How often control went from one block to another.

    Attributes:
        way: how.
        source: index into the function's blocks, or -1: from where the function was called.
        goal: the same; or -1: the function ended.
        times: how often, or None where that is not known.
    """

    way: Way
    source: int
    goal: int
    times: int | None


class Branch(NamedTuple):
    """What a conditional jump did.

    Attributes:
        slot: of the jump, in the original code.
        taken: how often it jumped, or None where that is not known.
        not_taken: how often it did not, or None.
    """

    slot: int
    taken: int | None
    not_taken: int | None


@dataclass(frozen=True, slots=True)
class FunctionCoverage:
    """One function.

    Attributes:
        name: its name.
        section: the code section that it is in.
        start: its first slot.
        end: the slot after its last.
        file: the source file that it starts in, or "".
        line: the line there, or 0.
        calls: how often it was called, or None where that is not known.
        blocks: its blocks, ascending; those that a pass put in beside the counters, which have
            no original code, are empty.
        edges: all ways between blocks, in and out.
        branches: its conditional jumps, ascending.
        is_counted: whether it counts as a function; one that starts in a line that is left out
            does not.
        left_out: indices of blocks that do not count, since all of their lines are left out.
    """

    name: str
    section: str
    start: int
    end: int
    file: str
    line: int
    calls: int | None
    blocks: tuple[BlockCount, ...]
    edges: tuple[EdgeCount, ...]
    branches: tuple[Branch, ...]
    is_counted: bool = True
    left_out: frozenset[int] = frozenset()

    def block_counts(self) -> list[int | None]:
        """How often each block ran, of those that count."""
        return [
            block.times
            for at, block in enumerate(self.blocks)
            if block.end > block.start and at not in self.left_out
        ]
