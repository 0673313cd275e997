"""Where instructions are spent: how many ran in each function, line and block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from bpfpatch import isa

from .counts import FunctionCoverage
from .model import Coverage


@dataclass(frozen=True, slots=True)
class Cost:
    """What one function, line or block cost.

    Attributes:
        name: of the function; or ``file:line``; or ``function#slot``.
        times: how often it was called, its line reached, or the block run.
        n_insns: instructions that ran in it, what it calls left out.
        share: of all that ran, 0 to 1.
        text: the source line, where it is known.
    """

    name: str
    times: int
    n_insns: int
    share: float
    text: str = ""


class _Stretch(NamedTuple):
    """Instructions of one block that belong to one line."""

    function: FunctionCoverage
    block: int
    file: str
    line: int
    times: int
    n_insns: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Instructions that ran, the most expensive first.

    What did not run, or whose count is not known, is left out.

    Attributes:
        n_insns: all of them; an ld_imm64 counts as one.
        functions: by function.
        lines: by source line; code without line records is left out.
        blocks: by basic block.
    """

    n_insns: int
    functions: tuple[Cost, ...]
    lines: tuple[Cost, ...]
    blocks: tuple[Cost, ...]

    @classmethod
    def of(cls, coverage: Coverage) -> Self:
        """The profile of what ran."""
        stretches = list(_stretches(coverage))
        total = sum(one.times * one.n_insns for one in stretches)
        by_function: dict[int, int] = defaultdict(int)
        by_block: dict[int, int] = defaultdict(int)
        by_line: dict[tuple[str, int], int] = defaultdict(int)
        for one in stretches:
            cost = one.times * one.n_insns
            by_function[one.function.start] += cost
            by_block[one.block] += cost
            if one.line:
                by_line[one.file, one.line] += cost

        def row(name: str, times: int, n_insns: int, text: str = "") -> Cost:
            return Cost(name, times, n_insns, n_insns / total if total else 0.0, text)

        functions = [
            row(one.name, one.calls or 0, by_function[one.start]) for one in coverage.functions
        ]
        blocks = [
            row(f"{one.name}#{block.start}", block.times or 0, by_block[block.start])
            for one in coverage.functions
            for block in one.blocks
            if block.end > block.start
        ]
        lines = []
        for (path, number), cost in by_line.items():
            file = coverage.files[path]
            name = f"{path.rpartition('/')[2]}:{number}"
            lines.append(
                row(name, file.lines.get(number) or 0, cost, file.text.get(number, "").strip())
            )
        return cls(total, _sorted(functions), _sorted(lines), _sorted(blocks))


def _sorted(costs: list[Cost]) -> tuple[Cost, ...]:
    ran = [cost for cost in costs if cost.n_insns]
    return tuple(sorted(ran, key=lambda cost: (-cost.n_insns, cost.name)))


def _stretches(coverage: Coverage) -> Iterator[_Stretch]:
    """All blocks, cut where a line starts."""
    # How many instructions start in front of each slot.
    insns = coverage.cover.insns
    before = np.concatenate([[0], np.cumsum(~isa.second_slots(insns))]).tolist()
    rows = sorted(coverage.cover.lines, key=lambda row: row.slot)
    at = np.array([row.slot for row in rows], np.int64)
    for function in coverage.functions:
        for start, end, count in function.blocks:
            times = count or 0
            first = int(np.searchsorted(at, start, side="right"))
            last = int(np.searchsorted(at, end, side="left"))
            cuts = [start, *at[first:last].tolist(), end]
            for index, (one, behind) in enumerate(pairwise(cuts)):
                if behind <= one:
                    continue
                known = rows[first + index - 1] if first + index else None
                # A record of the function before says nothing of this one.
                is_ours = known is not None and known.slot >= function.start
                file, line = (known.file, known.line) if known and is_ours else ("", 0)
                yield _Stretch(function, start, file, line, times, before[behind] - before[one])
