"""What a measurement gives: tables and plots, as text, Markdown and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

Cell = str | float | int | Sequence[float] | None
"""Text, a number, the values of several runs, or nothing."""

_FINE, _COARSE = 0.1, 100.0
_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """A table; a cell with several runs shows their median, and how far they lie apart.

    Attributes:
        title: what it is of.
        header: the columns' names, with units.
        rows: as many cells each.
        notes: what must be said beneath it.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    notes: tuple[str, ...] = ()

    def text(self, beside: Table | None = None) -> list[str]:
        """For a terminal: columns aligned, numbers to the right.

        Args:
            beside: an earlier table of this title, whose cells follow in brackets where its
                columns are the same.
        """
        other = beside if beside is not None and beside.header == self.header else None
        old = {str(row[0]): row for row in other.rows} if other is not None else {}
        cells = [self.header, *(_beside(row, old.get(str(row[0]))) for row in self.rows)]
        widths = [max(len(row[at]) for row in cells) for at in range(len(self.header))]
        lines = [
            "  ".join(
                cell.ljust(width) if at == 0 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        return [self.title, *lines, *self.notes]

    def markdown(self) -> list[str]:
        """For a document."""
        lines = [f"**{self.title}**", ""]
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        for row in (self.header, rule, *([shown(cell) for cell in row] for row in self.rows)):
            lines.append("| " + " | ".join(row) + " |")
        return [*lines, "", *(f"{note}  " for note in self.notes), *([""] if self.notes else [])]


def _beside(row: tuple[Cell, ...], old: tuple[Cell, ...] | None) -> tuple[str, ...]:
    first, *cells = (shown(cell) for cell in row)
    if old is None:
        return first, *cells
    before = [_NOTHING if cell is None else middle(cell) for cell in old[1:]]
    return first, *(f"{now} [{then}]" for now, then in zip(cells, before, strict=False))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot.

    Attributes:
        label: what it is.
        points: pairs of x and y.
        style: "line", or "points" without one.
        group: lines of one group share a panel.
    """

    label: str
    points: Collection[tuple[float, float]]
    style: str = "line"
    group: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with logarithmic axes, of one panel for each group of lines.

    Attributes:
        name: of its files.
        title: of the whole.
        x: what is to the right, with its unit.
        y: what is up, with its unit.
        lines: in the order of the legend.
    """

    name: str
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]


@dataclass(slots=True)
class Outcome:
    """What one measurement gives.

    Attributes:
        tables: to print.
        plots: to draw.
        figures: every number of every run, for the JSON.
    """

    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """All of it, in plain types."""
        return {"figures": self.figures, "tables": [asdict(table) for table in self.tables]}


def shown(cell: Cell) -> str:
    """A cell as text: three digits of a number, and the spread of several."""
    if cell is None:
        return _NOTHING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, (int, float)):
        return number(cell)
    if not cell:
        return _NOTHING
    if len(cell) == 1:
        return middle(cell)
    return f"{middle(cell)} ({number(min(cell))} to {number(max(cell))})"


def middle(cell: Cell) -> str:
    """A cell as text without its spread."""
    if isinstance(cell, str | int | float) or not cell:
        return shown(cell)
    return number(statistics.median(cell))


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if isinstance(value, int) or abs(value) >= _COARSE:
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    if abs(value) < _FINE:
        return f"{value:.2g}"
    return f"{value:.3g}"
