"""Text for graphviz, and the picture that graphviz makes of it where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.text import visible

SUFFIXES: Final = (".dot", ".gv", ".svg")
"""What a picture's name ends in."""

NODE: Final = 'node [shape=box, style=filled, fontname="monospace", fontsize=10];'
EDGE: Final = 'edge [fontname="monospace", fontsize=9];'

_SECONDS: Final = 60


def check_picture(path: str) -> None:
    """Refuse a name that does not say which kind of picture to make; - is text.

    Raises:
        OptionError: it does not.
    """
    if path != "-" and Path(path).suffix.lower() not in SUFFIXES:
        raise OptionError(f"a picture's name ends in {', '.join(SUFFIXES)}, not {path}")


def picture(dot: str, path: str) -> bytes:
    """What to write to a path: the text itself, or for ``.svg`` the picture.

    Raises:
        UnsupportedError: graphviz is not installed, or failed.
    """
    text = to_svg(dot) if Path(path).suffix.lower() == ".svg" else dot
    return text.encode("utf-8", "backslashreplace")


def to_svg(dot: str) -> str:
    """The picture that graphviz makes of a text.

    Raises:
        UnsupportedError: graphviz is not installed, or failed.
    """
    tool = shutil.which("dot")
    if tool is None:
        raise UnsupportedError(
            "graphviz is not installed, which makes the picture: install it, or take the dot text"
        )
    try:
        done = subprocess.run(
            [tool, "-Tsvg"],
            input=dot,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UnsupportedError(
            f"graphviz took more than {_SECONDS} seconds: the function is too big for a picture"
        ) from error
    if done.returncode:
        raise UnsupportedError(f"graphviz failed: {done.stderr.strip()}")
    return done.stdout


def label(head: Sequence[str], lines: Sequence[str], most: int) -> str:
    """A block's label: a few lines, and of too many others the first and the last."""
    if len(lines) > most:
        half = most // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} more ...", *lines[-half:]]
    return '"' + left_aligned([*head, *lines]) + '"'


def left_aligned(lines: Iterable[str]) -> str:
    """Lines of a label, each of which starts at its left."""
    return "".join(f"{escaped(line)}\\l" for line in lines)


def escaped(text: str) -> str:
    """Text within quotes."""
    return visible(text).replace("\\", "\\\\").replace('"', '\\"')


def quoted(text: str) -> str:
    """Text in quotes."""
    return f'"{escaped(text)}"'
