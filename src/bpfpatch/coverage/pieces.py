"""Which instructions stand behind a source line."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from .model import Branch, Coverage, FunctionCoverage, higher
from .totals import sides

State = Literal["hit", "part", "miss", "unknown"]


class LinePiece(NamedTuple):
    """Instructions in a row that belong to one line and one block.

    Attributes:
        start: first slot.
        end: slot after the last.
        times: how often they ran, or None where that is not known.
        function: index of the function.
        file: path of the source file, "" without line info.
        line: number of the line, or 0.
    """

    start: int
    end: int
    times: int | None
    function: int
    file: str
    line: int


class Pieces:
    """The pieces of all functions.

    Attributes:
        of_function: pieces of each function, ascending.
        of_line: pieces by file and line number.
    """

    def __init__(self, coverage: Coverage) -> None:
        self._rows = coverage.cover.lines
        self._slots = [row.slot for row in self._rows]
        self.of_function = [self._cut(at, one) for at, one in enumerate(coverage.functions)]
        self.of_line: dict[tuple[str, int], list[LinePiece]] = {}
        for pieces in self.of_function:
            for piece in pieces:
                if piece.line:
                    self.of_line.setdefault((piece.file, piece.line), []).append(piece)

    def lines_of(self, number: int, file: str) -> dict[int, int | None]:
        """The lines of a file that a function has code of, and the highest count of each."""
        out: dict[int, int | None] = {}
        for piece in self.of_function[number]:
            if piece.file == file and piece.line:
                out[piece.line] = higher(piece.times, out.get(piece.line, 0))
        return dict(sorted(out.items()))

    def _cut(self, number: int, function: FunctionCoverage) -> list[LinePiece]:
        """A function's blocks, cut where another line starts.

        A line record holds until the next one, also from one block into the next.
        """
        out: list[LinePiece] = []
        for start, end, times in function.blocks:
            if start == end:
                continue
            inside = self._slots[bisect_right(self._slots, start) : bisect_left(self._slots, end)]
            bounds = [start, *inside, end]
            for first, behind in pairwise(bounds):
                file, line = self._line(first, function.start)
                piece = LinePiece(first, behind, times, number, file, line)
                if first > start and out[-1][2:] == piece[2:]:
                    piece = piece._replace(start=out.pop().start)
                out.append(piece)
        return out

    def _line(self, slot: int, since: int) -> tuple[str, int]:
        at = bisect_right(self._slots, slot) - 1
        if at < 0 or self._slots[at] < since:
            return "", 0
        return self._rows[at].file, self._rows[at].line


def state(times: int | None, pieces: Sequence[LinePiece], branches: Sequence[Branch]) -> State:
    """Whether a line ran, and whether all of it did: all its instructions, all ways from it."""
    if times is None:
        return "unknown"
    if not times:
        return "miss"
    ways = [way for branch in branches for way in sides(branch)]
    is_whole = all(piece.times for piece in pieces) and all(ways)
    return "hit" if is_whole else "part"
