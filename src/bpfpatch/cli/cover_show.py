"""Coverage on the screen: tables and source, coloured on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Final, Literal

import click

from bpfpatch.coverage.terminal import Kind, Table, fitted
from bpfpatch.text import visible

from .screen import echo, echo_table, has_color

_GOOD: Final = 0.9
_FAIR: Final = 0.5
_COLORS: Final[dict[Kind, str]] = {
    "head": "cyan",
    "gap": "bright_black",
    "text": "bright_black",
    "hit": "green",
    "part": "yellow",
    "miss": "red",
    "unknown": "magenta",
}


def echo_coverage(table: Table) -> None:
    """Print a table; on a terminal, rows are coloured by how much ran."""
    table = fitted(table, shutil.get_terminal_size().columns)
    if sys.stdout.isatty():
        _rich_table(table)
    else:
        echo_table("", table.columns, [row.cells for row in table.rows])


def _color(share: float | None) -> str:
    if share is None:
        return ""
    return "green" if share >= _GOOD else "yellow" if share >= _FAIR else "red"


def _rich_table(table: Table) -> None:
    from rich.console import Console  # noqa: PLC0415 - rich takes a while, and few need it
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    out = RichTable()
    for column in table.columns:
        is_number = column.endswith("#")
        justify: Literal["left", "right"] = "right" if is_number else "left"
        out.add_column(column.removesuffix("#"), justify=justify, no_wrap=is_number)
    for row in table.rows:
        first, *others = (visible(cell) for cell in row.cells)
        style = _color(row.share)
        out.add_row(Text(first), *(Text(cell, style=style) for cell in others))
    Console(no_color=not has_color()).print(out)


def echo_listing(lines: Iterator[tuple[Kind, str]]) -> None:
    """Print source with counts."""
    color = has_color()
    for kind, raw in lines:
        line = visible(raw)
        shown = click.style(line, fg=_COLORS[kind]) if color else line
        sys.stdout.write(f"{shown}\n")


def echo_notices(where: str, notices: tuple[str, ...]) -> None:
    """Print to the standard error what to know of the numbers."""
    for text in notices:
        echo(f"{where}: note: {text}", err=True)
