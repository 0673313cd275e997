"""Source files: how reports call them, and their text, found on disk or as the object has it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final, Self

from bpfpatch.errors import OptionError

from .model import Coverage, FileCoverage
from .words import shown_path

MAX_BYTES: Final = 16 << 20
"""More than a source file has."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """What is known of one source file.

    Attributes:
        name: how to call it: where it is below the folder that it was found in, or that its path
            leads into; else its path.
        found: where it is on disk, or None.
        lines: text by line number; of all lines where it was found.
    """

    name: str
    found: Path | None
    lines: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class PathMap:
    """Where a folder is now that was another one when objects were compiled.

    Attributes:
        old: the folder as objects have it.
        new: what stands in its place.
    """

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``OLD=NEW``.

        Raises:
            OptionError: there is no ``=``, or nothing before it.
        """
        old, is_there, new = text.partition("=")
        if not is_there or not old:
            raise OptionError(f"a path map is OLD=NEW, as in /build/lb=., not {text!r}")
        return cls(posixpath.normpath(old), posixpath.normpath(new or "."))

    def of(self, path: str) -> str | None:
        """The path in the new folder; None for one that is not in the old one."""
        parts, old = PurePosixPath(path).parts, PurePosixPath(self.old).parts
        if parts[: len(old)] != old:
            return None
        return posixpath.join(self.new, *parts[len(old) :])


@dataclass(frozen=True, slots=True)
class Sources:
    """The texts of an object's source files.

    Attributes:
        texts: by the path that the object has.
        notices: why a file that was found is not used.
        roots: folders that files were looked for in.
    """

    texts: Mapping[str, SourceText]
    notices: tuple[str, ...] = field(default=())
    roots: tuple[Path, ...] = field(default=())

    @classmethod
    def find(
        cls,
        coverage: Coverage,
        roots: Sequence[str | os.PathLike[str]] = (),
        maps: Sequence[PathMap] = (),
    ) -> Sources:
        """Look for an object's source files below folders.

        A file is looked for by its whole path, then by ever less of it. No path leads out of
        a folder: what an object names is not to be trusted. A file whose lines are not those
        that the object has is another version, and not used; nor is one that has only its name
        in common with it, where the object has no lines to compare.

        Args:
            coverage: names the files.
            roots: folders; none for only what the object has.
            maps: folders that have moved; the longest that fits is used.
        """
        bases = tuple(Path(root).resolve() for root in roots)
        texts, notices = {}, []
        for path, file in coverage.files.items():
            moved = _moved(path, maps)
            texts[path] = SourceText(_lexical(moved, bases), None, file.text)
            for place, base, is_by_name in _places(moved, bases):
                lines = _read(place)
                if lines is None:
                    continue
                wrong = _disagreement(file, lines)
                if wrong is None and is_by_name and not file.text:
                    wrong = (
                        f"only its name is that of {shown_path(moved)}, and the object has no "
                        "text to compare it with; say where that is with a path map"
                    )
                if wrong is None:
                    name = place.relative_to(base).as_posix()
                    texts[path] = SourceText(name, place, dict(enumerate(lines, 1)))
                    break
                notices.append(f"{place} is not what was compiled: {wrong}; it is not shown")
        return cls(texts, tuple(notices), bases)

    def of(self, file: FileCoverage) -> SourceText:
        """What is known of a file."""
        return self.texts.get(file.path) or SourceText(shown_path(file.path), None, file.text)


def placed(coverage: Coverage, sources: Sources) -> tuple[Coverage, Sources]:
    """The same with files called as reports call them; those that are one file become one.

    Args:
        coverage: what ran.
        sources: of its files.
    """
    names = _names(coverage, sources)
    texts = {names[path]: sources.texts[path] for path in coverage.files if path in sources.texts}
    texts = {name: replace(text, name=name) for name, text in texts.items()}
    new = replace(sources, texts=texts)
    if all(path == name for path, name in names.items()):
        return coverage, new
    rows = (replace(row, file=names.get(row.file, row.file)) for row in coverage.cover.lines)
    cover = replace(coverage.cover, lines=tuple(rows))
    objects = coverage.objects or (coverage.cover.identity,)
    return replace(Coverage.of(cover, coverage.hits, coverage.notices), objects=objects), new


def _names(coverage: Coverage, sources: Sources) -> dict[str, str]:
    """By path, what reports call it: files of one name in several folders have their places."""
    texts = {path: sources.of(file) for path, file in coverage.files.items()}
    places: dict[str, set[Path]] = {}
    for text in texts.values():
        if text.found is not None:
            places.setdefault(text.name, set()).add(text.found)
    return {
        path: str(text.found) if len(places.get(text.name, ())) > 1 and text.found else text.name
        for path, text in texts.items()
    }


def path_parts(path: str) -> tuple[str, ...]:
    """The parts of a path below whatever it starts from."""
    parts = PurePosixPath(shown_path(path)).parts
    return tuple(part for part in parts if part not in ("/", "//", "..", ".")) or ("unnamed",)


def _moved(path: str, maps: Sequence[PathMap]) -> str:
    plain = posixpath.normpath(path) if path else path
    for one in sorted(maps, key=lambda one: len(PurePosixPath(one.old).parts), reverse=True):
        found = one.of(plain)
        if found is not None:
            return found
    return path


def _lexical(path: str, bases: Sequence[Path]) -> str:
    """A file's name where it is not found: a path into a folder is one within it."""
    for base in bases:
        plain = PurePosixPath(posixpath.normpath(path))
        if plain.is_absolute() and plain.is_relative_to(base) and plain != PurePosixPath(base):
            return shown_path(plain.relative_to(base).as_posix())
    return shown_path(path)


def _places(path: str, bases: Sequence[Path]) -> Iterator[tuple[Path, Path, bool]]:
    """Files below the roots that may be the one, the likeliest first.

    Yields:
        The file, the root, and whether nothing of the path but the file's name leads there.
    """
    plain = shown_path(path)
    is_within = not plain.startswith(("/", "../"))
    for base in bases:
        inner = _lexical(path, [base])
        parts = path_parts(inner)
        is_whole = is_within or inner != plain
        for first in range(len(parts)):
            place = base.joinpath(*parts[first:])
            if _is_file(place) and place.resolve().is_relative_to(base):
                is_by_name = first == len(parts) - 1 and not (is_whole and first == 0)
                yield place, base, is_by_name


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
