"""What all parts of the page are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bpfpatch.text import visible

from ..code import CountedCode
from ..counts import Branch
from ..model import Coverage
from ..pieces import Pieces, State
from ..sources import Sources
from ..totals import CoverTally
from ..words import times

CLASSES: Final[Mapping[State, str]] = {"hit": "h", "part": "p", "miss": "m", "unknown": "q"}
"""Short, since a page has many."""

JUMPED: Final = "\u21b7"
WENT_ON: Final = "\u2193"


@dataclass(frozen=True, slots=True)
class Content:
    """What a page is made from.

    Attributes:
        coverage: what ran.
        sources: texts of the source files.
        pieces: which instructions belong to which line.
        code: their text.
        branches: all branches, by slot.
        anchor: by the first slot of each block, where on the page it is.
    """

    coverage: Coverage
    sources: Sources
    pieces: Pieces
    code: CountedCode
    branches: Mapping[int, Branch]
    anchor: Mapping[int, str]

    @classmethod
    def of(cls, coverage: Coverage, sources: Sources) -> Content:
        """Work out what all parts of the page need."""
        pieces = Pieces(coverage)
        numbers = {path: number for number, path in enumerate(coverage.files)}
        anchor = {}
        for mine in pieces.of_function:
            for piece in mine:
                is_shown = piece.file in numbers and (
                    piece.line in coverage.files[piece.file].lines
                    or piece.line in sources.of(coverage.files[piece.file]).lines
                )
                anchor[piece.start] = (
                    f"f{numbers[piece.file]}-{piece.line}" if is_shown else f"s{piece.start}"
                )
        branches = {branch.slot: branch for one in coverage.functions for branch in one.branches}
        return cls(coverage, sources, pieces, CountedCode(coverage), branches, anchor)

    def insn(self, slot: int, text: str) -> str:
        """One instruction: a jump's goal is a link, and what the jump did stands after it."""
        goal = self.code.goals.get(slot)
        if goal is None:
            return escape(text)
        shown, label = text.removesuffix(f"L{goal}"), f"L{goal}"
        at = self.anchor.get(goal)
        link = f'<a href="#{at}">{label}</a>' if at else label
        branch = self.branches.get(slot)
        return f"{escape(shown)}{link}{self._ways(branch) if branch else ''}"

    def _ways(self, branch: Branch) -> str:
        return f"  <u>{way(JUMPED, branch.taken)}  {way(WENT_ON, branch.not_taken)}</u>"


def way(arrow: str, count: int | None) -> str:
    """One way of a branch: an arrow and how often."""
    kind = ' class="z"' if count == 0 else ""
    return f"<i{kind}>{arrow}\u202f{times(count)}</i>"


def bar(tally: CoverTally) -> str:
    """A share as a bar."""
    if not tally.total:
        return ""
    return f'<span class="bar"><i style="width:{100 * tally.share:.1f}%"></i></span>'


def shown(text: str) -> str:
    """Text of an object: nothing hidden in it, and no markup."""
    return escape(visible(text))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], is_number: Callable[[int], bool]
) -> str:
    """A table of HTML cells."""

    def cell(tag: str, at: int, text: str) -> str:
        scope = ' scope="col"' if tag == "th" else ""
        kind = ' class="num"' if is_number(at) else ""
        return f"<{tag}{scope}{kind}>{text}</{tag}>"

    titles = "".join(cell("th", at, text) for at, text in enumerate(head))
    body = "".join(
        f"<tr>{''.join(cell('td', at, text) for at, text in enumerate(row))}</tr>\n" for row in rows
    )
    return (
        f'<div class="wide"><table class="list"><thead><tr>{titles}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )
