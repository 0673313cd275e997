"""Text that is safe to show, and numbers as a reader wants them."""

from __future__ import annotations

import posixpath

from bpfpatch.text import visible


def shown_path(path: str) -> str:
    """A source path without detours: ``./lib/../prog.c`` is ``prog.c``."""
    return visible(posixpath.normpath(path)) if path else "(no name)"


def times(count: int | None) -> str:
    """How often something ran: in groups of three digits, or ``?`` where that is not known."""
    return "?" if count is None else f"{count:,}"


def percent(hit: int, total: int) -> str:
    """A share with one digit after the point, never rounded up to 100 or down to 0."""
    if not total:
        return "-"
    tenths = round(1000 * hit / total)
    if 0 < hit < total:
        tenths = min(max(tenths, 1), 999)
    return f"{tenths // 10}.{tenths % 10} %"
