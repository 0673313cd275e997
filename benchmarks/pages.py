"""Put tables into documents, between markers, so that figures there are what was printed.

A marker is ``<!-- bench:NAME:begin -->``, closed by ``<!-- bench:NAME:end -->``.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from .report import Table

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "benchmarks"
_PAGES: Final = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")


def saved_tables(name: str) -> dict[str, Table]:
    """The tables of a measurement that were saved last, by title."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return {}
    tables = (Table(**table) for table in json.loads(path.read_text())["tables"])
    return {table.title: replace(table, header=tuple(table.header)) for table in tables}


def filled(name: str, lines: list[str]) -> dict[Path, bytes]:
    """Put lines between the markers of this name, in every document that has them.

    Returns:
        The documents that have them, as they are to be.
    """
    texts = {page: replaced(page.read_text(), name, lines) for page in _PAGES if page.exists()}
    return {page: text.encode() for page, text in texts.items() if text is not None}


def write(files: dict[Path, bytes]) -> None:
    """Write files that belong together, and none by half: beside their places, then renamed."""
    parts = {path: path.with_name(f".{path.name}.part") for path in files}
    try:
        for path, data in files.items():
            path.parent.mkdir(exist_ok=True)
            parts[path].write_bytes(data)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def replaced(text: str, name: str, lines: list[str]) -> str | None:
    """The text with these lines between the markers, or None where it has none."""
    begin, end = (f"<!-- bench:{name}:{part} -->" for part in ("begin", "end"))
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.S)
    if not pattern.search(text):
        return None
    inside = "\n".join(lines).strip("\n")
    return pattern.sub(lambda _: f"{begin}\n{inside}\n{end}", text)
