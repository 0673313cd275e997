"""Text that is safe to show, and numbers as a reader wants them."""

from __future__ import annotations

import posixpath
import re
from typing import Final

_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
"""Control characters but the tab, marks that turn the direction of writing round, which can make
a line look like another one, and what no XML file may hold."""


def visible(text: str) -> str:
    """Text of an object, which may hold anything, on one line and with nothing hidden in it."""
    return _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown_path(path: str) -> str:
    """A source path without detours: ``./lib/../prog.c`` is ``prog.c``."""
    return visible(posixpath.normpath(path)) if path else "(no name)"


def times(count: int | None) -> str:
    """How often something ran: in groups of three digits, or ``?`` where that is not known."""
    return "?" if count is None else f"{count:,}"


def percent(hit: int, total: int) -> str:
    """A share with one digit behind the point, never rounded up to 100 or down to 0."""
    if not total:
        return "-"
    tenths = round(1000 * hit / total)
    if 0 < hit < total:
        tenths = min(max(tenths, 1), 999)
    return f"{tenths // 10}.{tenths % 10} %"
