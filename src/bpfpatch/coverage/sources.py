"""The text of source files: found on disk, or as far as the object has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from .model import Coverage, FileCoverage
from .words import shown_path

MAX_BYTES: Final = 16 << 20
"""More than a source file has."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """What is known of one source file.

    Attributes:
        name: how to call it.
        found: where it is on disk, or None.
        lines: text by line number; of all lines where it was found.
    """

    name: str
    found: Path | None
    lines: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Sources:
    """The texts of an object's source files.

    Attributes:
        texts: by the path that the object has.
        notices: why a file that was found is not used.
    """

    texts: Mapping[str, SourceText]
    notices: tuple[str, ...] = field(default=())

    @classmethod
    def find(cls, coverage: Coverage, roots: Sequence[str | os.PathLike[str]] = ()) -> Sources:
        """Look for an object's source files below folders.

        A file is looked for by its whole path, then by ever less of it. No path leads out of
        a folder: what an object names is not to be trusted. A file whose lines are not those
        that the object has is another version, and not used.

        Args:
            coverage: names the files.
            roots: folders; none for only what the object has.
        """
        texts, notices = {}, []
        for path, file in coverage.files.items():
            name = shown_path(path)
            texts[path] = SourceText(name, None, file.text)
            for place in _places(path, roots):
                lines = _read(place)
                if lines is None:
                    continue
                wrong = _disagreement(file, lines)
                if wrong is None:
                    texts[path] = SourceText(name, place, dict(enumerate(lines, 1)))
                    break
                notices.append(f"{place} is not what was compiled: {wrong}; it is not shown")
        return cls(texts, tuple(notices))

    def of(self, file: FileCoverage) -> SourceText:
        """What is known of a file."""
        return self.texts.get(file.path) or SourceText(shown_path(file.path), None, file.text)


def path_parts(path: str) -> tuple[str, ...]:
    """The parts of a path below whatever it starts from."""
    parts = PurePosixPath(shown_path(path)).parts
    return tuple(part for part in parts if part not in ("/", "//", "..", ".")) or ("unnamed",)


def _places(path: str, roots: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """Files below the roots that may be the one, the likeliest first."""
    parts = path_parts(path)
    for root in roots:
        base = Path(root).resolve()
        for first in range(len(parts)):
            place = base.joinpath(*parts[first:])
            if _is_file(place) and place.resolve().is_relative_to(base):
                yield place


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False


def _read(place: Path) -> list[str] | None:
    """The lines of a file, or None where it cannot be read."""
    try:
        if place.stat().st_size > MAX_BYTES:
            return None
        text = place.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines if lines[-1] else lines[:-1]


def _disagreement(file: FileCoverage, lines: list[str]) -> str | None:
    """In what a file is not the one that was compiled, or None.

    Blanks around a line do not count: compilers and tools trim them.
    """
    last = max(file.lines, default=0)
    if last > len(lines):
        return f"it has {len(lines)} lines, and the code comes from line {last}, too"
    for number, text in file.text.items():
        if number <= len(lines) and lines[number - 1].strip() != text.strip():
            return f"line {number} is another"
    return None
