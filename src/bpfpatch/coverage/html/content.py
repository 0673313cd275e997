"""What all parts of the page are made from, and the small things that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from bpfpatch.text import visible

from ..code import CountedCode
from ..counts import Branch
from ..model import Coverage
from ..pieces import Pieces, State
from ..sources import Sources
from ..terminal import branch_owners
from ..totals import CoverTally
from ..words import times

CLASSES: Final[Mapping[State, str]] = {"hit": "h", "part": "p", "miss": "m", "unknown": "q"}
"""Short, since a page has many."""

JUMPED: Final = "\u21b7"
WENT_ON: Final = "\u2193"


class Side(NamedTuple):
    """One way of a branch.

    Attributes:
        arrow: which.
        times: how often.
        is_missing: whether it was never taken.
    """

    arrow: str
    times: str
    is_missing: bool

    @classmethod
    def of(cls, arrow: str, count: int | None) -> Self:
        """A way and its count."""
        return cls(arrow, times(count), count == 0)


class Lines(str):
    """Text of several lines that hides nothing, as `visible` makes each."""

    __slots__ = ()


class InsnsView(NamedTuple):
    """Instructions, up to the goal of a jump.

    Attributes:
        text: lines, the last without the jump's goal.
        label: of the goal, or "".
        anchor: where on the page that is, or "".
        sides: of a branch.
    """

    text: Lines
    label: str
    anchor: str
    sides: tuple[Side, ...]


class Share(NamedTuple):
    """So much of so much.

    Attributes:
        text: as in ``3/4``, or "" of nothing.
        percent: as text.
        width: of a bar, in percent, or "" for none.
        order: what to sort by.
        is_whole: whether nothing is missing.
    """

    text: str
    percent: str
    width: str
    order: str
    is_whole: bool

    @classmethod
    def of(cls, tally: CoverTally) -> Self:
        """A tally as the page has it."""
        width = f"{100 * tally.share:.1f}" if tally.total else ""
        order = f"{tally.share:.6f}" if tally.total else "-1"
        text = str(tally) if tally.total else ""
        return cls(text, tally.percent, width, order, tally.hit == tally.total)


@dataclass(frozen=True, slots=True)
class Content:
    """What a page is made from.

    Attributes:
        coverage: what ran.
        sources: texts of the source files.
        pieces: which instructions belong to which line.
        code: their text.
        branches: all branches, by slot.
        owner: the name of the function that a branch is in, by its slot.
        anchor: by the first slot of each block, where on the page it is.
    """

    coverage: Coverage
    sources: Sources
    pieces: Pieces
    code: CountedCode
    branches: Mapping[int, Branch]
    owner: Mapping[int, str]
    anchor: Mapping[int, str]

    @classmethod
    def of(cls, coverage: Coverage, sources: Sources) -> Self:
        """Work out what all parts of the page need."""
        pieces = Pieces(coverage)
        shown = {
            path: (number, {*file.lines, *sources.of(file).lines})
            for number, (path, file) in enumerate(coverage.files.items())
        }
        anchor = {}
        for mine in pieces.of_function:
            for piece in mine:
                number, lines = shown.get(piece.file, (0, set()))
                is_shown = piece.line in lines
                anchor[piece.start] = f"f{number}-{piece.line}" if is_shown else f"s{piece.start}"
        branches = {branch.slot: branch for one in coverage.functions for branch in one.branches}
        return cls(
            coverage,
            sources,
            pieces,
            CountedCode(coverage),
            branches,
            branch_owners(coverage),
            anchor,
        )

    def insns(self, start: int, end: int, count: str = "") -> list[InsnsView]:
        """Instructions, one a line: a jump's goal is a link, and what it did stands after it.

        Args:
            start: first slot.
            end: slot after the last.
            count: how often they ran, to stand before each.
        """
        out: list[InsnsView] = []
        text: list[str] = []
        for slot, insn in self.code.listed(start, end):
            line = f"{count:>13}  {slot:>5}  {visible(insn)}"
            goal = self.code.goals.get(slot)
            if goal is None:
                text.append(line)
                continue
            label = f"L{goal}"
            text.append(line.removesuffix(label))
            sides = sides_of(self.branches[slot]) if slot in self.branches else ()
            out.append(InsnsView(_lines(text), label, self.anchor.get(goal, ""), sides))
            text = [""]
        out.append(InsnsView(_lines(text), "", "", ()))
        return out


def _lines(text: list[str]) -> Lines:
    return Lines("\n".join(text))


def sides_of(branch: Branch) -> tuple[Side, Side]:
    """Both ways of a branch."""
    return Side.of(JUMPED, branch.taken), Side.of(WENT_ON, branch.not_taken)
