"""Read and write whole files; a write happens entirely or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, Final

from bpfpatch.errors import FormatError

Source = str | os.PathLike[str] | BinaryIO
Target = str | os.PathLike[str] | BinaryIO


MAX_BYTES: Final = 256 << 20
"""More than any object has: a device or pipe that gives more does not end."""


def read_all(source: Source) -> bytes:
    """All bytes of a file, of an open binary stream, or of standard input (``-``).

    Raises:
        OSError: it cannot be read.
        FormatError: it has more bytes than any object, or no end at all.
    """
    if source == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    elif isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    else:
        data = source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"more than {MAX_BYTES >> 20} MiB, which no BPF object has", MAX_BYTES)
    return data


def write_all(target: Target, data: bytes) -> None:
    """Write a file, an open binary stream, or standard output (``-``).

    A file gets its new content in one step: the bytes go to a temporary file
    beside it, which then takes its name. It keeps the mode of what it
    replaces. Where that fails nothing is left behind, and what was there is
    still there. Devices and pipes are written to directly.

    Raises:
        OSError: the file cannot be written.
    """
    if target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if not isinstance(target, str | os.PathLike):
        target.write(data)
        return
    path = Path(os.path.realpath(target))
    mode = _mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        path.write_bytes(data)
        return
    _replace(path, data, _new_mode() if mode is None else stat.S_IMODE(mode))


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _new_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _replace(path: Path, data: bytes, mode: int) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make the new name last; not every file system can, and the content is safe without it."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
