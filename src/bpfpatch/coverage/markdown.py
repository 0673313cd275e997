"""Coverage as a table in Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from typing import Final

from bpfpatch.text import visible

from .model import Coverage
from .sources import Sources
from .terminal import Table, file_table, function_table
from .totals import of_object

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>|#!~$&])")


def to_markdown(coverage: Coverage, sources: Sources, title: str, command: str = "") -> str:
    """A heading with how much ran, the notices, and a row for each file.

    Args:
        coverage: what ran.
        sources: why some were not used.
        title: what was measured.
        command: what made it; this form does not say so.
    """
    del command
    name, tally = of_object(coverage).main
    out = [f"### Coverage of {escaped(title)}: {tally.percent} of {name}", ""]
    for notice in (*coverage.notices, *sources.notices):
        out += [f"> {escaped(notice)}", ""]
    table = file_table(coverage, has_missing=True) if coverage.files else function_table(coverage)
    return "\n".join([*out, *_rows(table), ""])


def _rows(table: Table) -> list[str]:
    names = [column.removesuffix("#").capitalize() for column in table.columns]
    marks = ["---:" if column.endswith("#") else "---" for column in table.columns]
    rows = [[escaped(cell) for cell in row.cells] for row in table.rows]
    if rows and table.rows[-1].cells[0] == "total":
        rows[-1] = [f"**{cell}**" if cell else "" for cell in rows[-1]]
    return [f"| {' | '.join(row)} |" for row in (names, marks, *rows)]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", visible(text)).replace("\n", " ")
