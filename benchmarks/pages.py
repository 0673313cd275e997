"""Put tables into documents, between markers, so that figures there are what was printed.

A marker is ``<!-- bench:NAME:begin -->``, closed by ``<!-- bench:NAME:end -->``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "benchmarks"
_PAGES: Final = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")


def fill(name: str, lines: list[str]) -> list[Path]:
    """Put lines between the markers of this name, in every document that has them.

    Returns:
        The documents that were written.
    """
    out = []
    for page in _PAGES:
        if not page.exists():
            continue
        old = page.read_text()
        new = replaced(old, name, lines)
        if new is None:
            continue
        page.write_text(new)
        out.append(page)
    return out


def replaced(text: str, name: str, lines: list[str]) -> str | None:
    """The text with these lines between the markers, or None where it has none."""
    begin, end = (f"<!-- bench:{name}:{part} -->" for part in ("begin", "end"))
    pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.S)
    if not pattern.search(text):
        return None
    inside = "\n".join(lines).strip("\n")
    return pattern.sub(lambda _: f"{begin}\n{inside}\n{end}", text)
