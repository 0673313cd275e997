"""Text that is safe to show, and numbers as a reader wants them."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final

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


LEAST_NAME: Final = 16
"""Characters that are left of a path."""
_CUT: Final = "\u2026"


def shortened(paths: Sequence[str], room: int) -> list[str]:
    """Paths that take no more than so many characters each, cut from the left.

    Where one is too long, all lose the folder that they have in common; those that are still too
    long then lose as much as it takes, but keep their last ``LEAST_NAME`` characters.
    """
    if max(map(len, paths), default=0) <= room:
        return list(paths)
    folders = [path.rpartition("/")[0] for path in paths if "/" in path]
    common = posixpath.commonpath(folders) if folders and _are_alike(folders) else ""
    out = []
    for path in paths:
        short = path
        if common and path.startswith(f"{common}/"):
            short = f"{_CUT}{path.removeprefix(common)}"
        out.append(_cut(short, max(room, LEAST_NAME)))
    return out


def _cut(path: str, most: int) -> str:
    """The end of a path, from the beginning of a part of it where one is short enough."""
    if len(path) <= most:
        return path
    at = path.find("/", len(path) + 1 - most)
    return f"{_CUT}{path[at:] if at >= 0 else path[1 - most :]}"


def _are_alike(folders: Sequence[str]) -> bool:
    return len({folder.startswith("/") for folder in folders}) == 1
