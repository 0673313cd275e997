"""What goes to the screen: tables, colour, and signs of life."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Literal

import click

from bpfpatch.text import visible, visible_lines

PATIENCE: Final = 1.0
"""Seconds after which something is shown to be going on."""

_BATCH: Final = 4096
"""Lines that are written at once."""

_LEAST_TEXT: Final = 8
_COLORS: Final = {"added": "green", "removed": "red", "head": "cyan", "source": "blue"}


def echo(text: str = "", *, err: bool = False) -> None:
    """Print one line."""
    click.echo(visible(text), err=err)


def echo_lines(lines: Iterable[str]) -> None:
    """Print lines, which end in no newline."""
    remaining = iter(lines)
    while some := list(islice(remaining, _BATCH)):
        sys.stdout.write("\n".join([*visible_lines(some), ""]))


def echo_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2))


def has_color() -> bool:
    """Whether the standard output is a terminal that may show colour."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def echo_diff(lines: Iterator[tuple[str, str]]) -> None:
    """Print the lines of a diff, coloured on a terminal."""
    color = has_color()
    while some := list(islice(lines, _BATCH)):
        shown = visible_lines([line for _, line in some])
        if color:
            shown = [
                click.style(line, fg=_COLORS[kind]) if kind in _COLORS else line
                for (kind, _), line in zip(some, shown, strict=True)
            ]
        sys.stdout.write("\n".join([*shown, ""]))


def echo_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose name ends in ``#`` are numbers."""
    names = [column.removesuffix("#").upper() for column in columns]
    cells = [names, *([visible(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # Numbers are not wrapped, and of text some has to be left: else columns would vanish.
    least = (
        w if c.endswith("#") else min(w, _LEAST_TEXT) for c, w in zip(columns, widths, strict=True)
    )
    if sys.stdout.isatty() and sum(least) + 3 * len(columns) < shutil.get_terminal_size().columns:
        _rich_table(title, columns, rows)
        return
    if title:
        echo(f"{title}:")
    for row in cells:
        padded = (
            cell.rjust(width) if column.endswith("#") else cell.ljust(width)
            for cell, column, width in zip(row, columns, widths, strict=True)
        )
        echo("  ".join(padded).rstrip())


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - rich takes a while, and few need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title or None, title_justify="left")
    for column in columns:
        is_number = column.endswith("#")
        justify: Literal["left", "right"] = "right" if is_number else "left"
        table.add_column(column.removesuffix("#"), justify=justify, no_wrap=is_number)
    for row in rows:
        table.add_row(*(Text(visible(str(cell))) for cell in row))
    Console().print(table)


_is_shown: Final[list[bool]] = []
"""Whether something is shown already: what is done within it says nothing of its own."""


@contextmanager
def patience(what: str) -> Iterator[None]:
    """Show on a terminal that something is going on, once it takes over a second."""
    with progress(what):
        yield


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """The same, for work of several parts: what is yielded says which one it is at."""
    if not sys.stderr.isatty() or _is_shown:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - see _rich_table
    from rich.status import Status  # noqa: PLC0415

    status = Status(f"{what} ...", console=Console(stderr=True))
    timer = threading.Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    _is_shown.append(True)
    try:
        yield lambda part: status.update(f"{what} {part} ...")
    finally:
        _is_shown.clear()
        timer.cancel()
        timer.join()
        status.stop()
