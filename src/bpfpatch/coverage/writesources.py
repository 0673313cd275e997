"""Write what is known of source files that are not found, for tools that show source.

Names, texts and line numbers come from the object, and are not to be trusted: no existing file
is replaced unless that is asked for, no symbolic link is followed, no path leads out of the
folder, and only a name that ends like source is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from .model import Coverage, FileCoverage
from .sources import Sources, SourceText, path_parts

MAX_LINE: Final = 1 << 20
"""More lines than a source file has; those after it are left out."""
MAX_NAME: Final = 200
"""Bytes of a name that are kept; file systems take 255."""

_SUFFIXES: Final = frozenset(
    {
        *(".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".inc", ".inl", ".s", ".S"),
        *(".rs", ".go", ".zig", ".bt", ".p4", ".txt"),
    }
)


def write_known_lines(
    coverage: Coverage, sources: Sources, folder: str | os.PathLike[str], *, force: bool = False
) -> Sources:
    """Write a file for each source file that was not found: the lines that are known, else empty.

    Args:
        coverage: names the files.
        sources: what is known.
        folder: below which to write; made if need be.
        force: replace files that are there and differ. Without, they are left as they are, and
            a notice says so.

    Returns:
        The sources, with the files that were written in place of those not found.

    Raises:
        OSError: a file cannot be written, or a symbolic link is in the way.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    root = root.resolve()
    names = _Names()
    texts, notices = {}, list(sources.notices)
    for path, file in coverage.files.items():
        text = sources.of(file)
        if text.found is None:
            body, left_out = _body(file, text)
            place = names.take(path)
            if left_out:
                notices.append(
                    f"{root / place}: {left_out} records of lines after {MAX_LINE} are left out"
                )
            if _write(root, place, body, force=force):
                text = SourceText(_name(root / place, sources.roots), root / place, text.lines)
            else:
                notices.append(
                    f"{root / place} is there and differs; it is not replaced without --force"
                )
        texts[path] = text
    return Sources(texts, tuple(notices), sources.roots)


def _name(place: Path, roots: tuple[Path, ...]) -> str:
    """What a report calls a file that was written: by a root that it is below, or in full."""
    for root in roots:
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return str(place)


def _body(file: FileCoverage, text: SourceText) -> tuple[bytes, int]:
    """A file's content, and how many lines have too high a number to be in it."""
    numbers = {*file.lines, *text.lines}
    last = max((one for one in numbers if one <= MAX_LINE), default=0)
    body = "".join(f"{text.lines.get(line, '')}\n" for line in range(1, last + 1))
    return body.encode("utf-8", "backslashreplace"), sum(one > MAX_LINE for one in numbers)


class _Names:
    """Gives each source path a place of its own below a folder."""

    def __init__(self) -> None:
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = set()

    def take(self, path: str) -> PurePosixPath:
        """A place that is no other's, neither as a file nor as a folder."""
        *folders, last = (_short(part) for part in path_parts(path))
        if PurePosixPath(last).suffix not in _SUFFIXES:
            last += ".txt"  # a Makefile, say, would mean something where it is written
        place = PurePosixPath()
        for part in folders:
            place = self._first_free(place / part, self._files)
            self._folders.add(place)
        place = self._first_free(place / last, self._files | self._folders)
        self._files.add(place)
        return place

    @staticmethod
    def _first_free(place: PurePosixPath, taken: set[PurePosixPath]) -> PurePosixPath:
        out, number = place, 1
        while out in taken:
            number += 1
            out = place.with_name(f"{place.stem}.{number}{place.suffix}")
        return out


def _short(part: str) -> str:
    raw = part.encode("utf-8", "backslashreplace")
    if len(raw) <= MAX_NAME:
        return part
    digest = hashlib.sha256(raw).hexdigest()[:8]
    suffix = PurePosixPath(part).suffix
    kept = raw[: MAX_NAME - 20].decode("utf-8", "ignore")
    return f"{kept}~{digest}{suffix if suffix in _SUFFIXES else ''}"


@dataclass(frozen=True, slots=True)
class _Folder:
    """An open folder: names in it are looked up in this very one, wherever its path leads now."""

    fd: int

    @contextlib.contextmanager
    def below(self, name: str) -> Iterator[_Folder]:
        """Open a folder in this one, made if need be, and no link."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=self.fd)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=self.fd)
        try:
            yield _Folder(fd)
        finally:
            os.close(fd)

    def has(self, name: str, body: bytes) -> bool:
        """Whether a regular file of this name and content is there."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=self.fd)
        except OSError:
            return False
        with os.fdopen(fd, "rb") as file:
            return file.read(len(body) + 1) == body

    def put(self, name: str, body: bytes, *, force: bool) -> None:
        """Make a file, whole or not at all.

        Raises:
            FileExistsError: something of this name is there, and not to be replaced.
        """
        temporary = f".bpfpatch-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o666, dir_fd=self.fd)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(body)
            if force:
                os.replace(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            else:
                os.link(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.fd)


def _write(root: Path, place: PurePosixPath, body: bytes, *, force: bool) -> bool:
    """Write a file below a folder; whether it has this content now."""
    with contextlib.ExitStack() as stack:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        folder = _Folder(fd)
        for part in place.parts[:-1]:
            folder = stack.enter_context(folder.below(part))
        if folder.has(place.name, body):
            return True
        try:
            folder.put(place.name, body, force=force)
        except FileExistsError:
            return False
    return True
