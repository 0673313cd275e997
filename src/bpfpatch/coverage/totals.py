"""How much of something ran."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .counts import Branch, FunctionCoverage
from .model import Coverage, FileCoverage
from .words import percent


@dataclass(frozen=True, slots=True)
class CoverTally:
    """So many of so many.

    Attributes:
        hit: what ran.
        total: what is there.
    """

    hit: int = 0
    total: int = 0

    def __add__(self, other: CoverTally) -> CoverTally:
        return CoverTally(self.hit + other.hit, self.total + other.total)

    def __sub__(self, other: CoverTally) -> CoverTally:
        return CoverTally(self.hit - other.hit, self.total - other.total)

    def __str__(self) -> str:
        return f"{self.hit}/{self.total}"

    @property
    def share(self) -> float:
        """From 0 to 1; 1 of nothing."""
        return self.hit / self.total if self.total else 1.0

    @property
    def percent(self) -> str:
        """The share as text."""
        return percent(self.hit, self.total)

    @classmethod
    def of(cls, counts: Iterable[int | None]) -> CoverTally:
        """Count how many are not 0, of those that are known."""
        seen = [count > 0 for count in counts if count is not None]
        return cls(sum(seen), len(seen))


@dataclass(frozen=True, slots=True)
class Totals:
    """What ran of a file, a function or an object.

    Attributes:
        lines: source lines that have code.
        branches: both ways of each conditional jump, as far as known.
        functions: functions.
        blocks: basic blocks.
    """

    lines: CoverTally
    branches: CoverTally
    functions: CoverTally
    blocks: CoverTally

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.lines - other.lines,
            self.branches - other.branches,
            self.functions - other.functions,
            self.blocks - other.blocks,
        )

    @property
    def main(self) -> tuple[str, CoverTally]:
        """What to judge by: lines, or blocks where no lines are known."""
        return ("lines", self.lines) if self.lines.total else ("blocks", self.blocks)


def sides(branch: Branch) -> tuple[int, ...]:
    """How often a branch went each way, as far as known: jumped, and went on."""
    return tuple(way for way in (branch.taken, branch.not_taken) if way is not None)


def of_file(file: FileCoverage) -> Totals:
    """Totals of one source file."""
    ways = [way for found in file.branches.values() for branch in found for way in sides(branch)]
    return Totals(
        lines=CoverTally.of(file.lines.values()),
        branches=CoverTally.of(ways),
        functions=CoverTally.of(one.calls for one in file.functions),
        blocks=_blocks(file.functions),
    )


def of_object(coverage: Coverage) -> Totals:
    """Totals of all that was counted, those functions among it that have no line info."""
    functions = coverage.functions
    ways = [way for one in functions for branch in one.branches for way in sides(branch)]
    return Totals(
        lines=CoverTally.of(n for file in coverage.files.values() for n in file.lines.values()),
        branches=CoverTally.of(ways),
        functions=CoverTally.of(one.calls for one in functions if one.is_counted),
        blocks=_blocks(functions),
    )


def _blocks(functions: Iterable[FunctionCoverage]) -> CoverTally:
    return CoverTally.of(times for one in functions for times in one.block_counts())
