"""Which instructions a source line became."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from .counts import Branch, FunctionCoverage
from .linecounts import LineTable, function_lines
from .model import Coverage
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
        is_loose: whether it may be of another line as well; see `linecounts.LineRun`.
    """

    start: int
    end: int
    times: int | None
    function: int
    file: str
    line: int
    is_loose: bool = False


class Pieces:
    """The pieces of all functions.

    Attributes:
        of_function: pieces of each function, ascending.
        of_line: pieces by file and line number.
    """

    def __init__(self, coverage: Coverage) -> None:
        cover = coverage.cover
        self._table = LineTable(cover.lines, cover.insns)
        self._functions = coverage.functions
        self._files = coverage.files
        self._lines: dict[int, dict[tuple[str, int], int | None]] = {}
        self.of_function = [self._cut(at, one) for at, one in enumerate(coverage.functions)]
        self.of_line: dict[tuple[str, int], list[LinePiece]] = {}
        for pieces in self.of_function:
            for piece in pieces:
                if piece.line:
                    self.of_line.setdefault((piece.file, piece.line), []).append(piece)

    def lines_of(self, number: int, file: str) -> dict[int, int | None]:
        """The lines of a file that a function has code of, and how often each ran in it."""
        found = self.all_lines_of(number)
        return {line: count for (path, line), count in sorted(found.items()) if path == file}

    def all_lines_of(self, number: int) -> dict[tuple[str, int], int | None]:
        """The same of all files, by path and number; what is left out of those is left out."""
        if number not in self._lines:
            found = function_lines(self._functions[number], self._table)
            files = self._files
            self._lines[number] = {
                (path, line): count
                for (path, line), count in found.items()
                if path in files and line in files[path].lines
            }
        return self._lines[number]

    def _cut(self, number: int, function: FunctionCoverage) -> list[LinePiece]:
        """A function's blocks, cut where another line starts."""
        return [
            LinePiece(start, end, function.blocks[block].times, number, file, line, is_loose)
            for start, end, file, line, block, is_loose in self._table.runs(function)
        ]


def state(times: int | None, pieces: Sequence[LinePiece], branches: Sequence[Branch]) -> State:
    """Whether a line ran, and whether all of it did: all its instructions, all ways from it."""
    if times is None:
        return "unknown"
    if not times:
        return "miss"
    ways = [way for branch in branches for way in sides(branch)]
    is_whole = all(piece.times or piece.is_loose for piece in pieces) and all(ways)
    return "hit" if is_whole else "part"
