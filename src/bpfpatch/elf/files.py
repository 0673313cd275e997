"""Read and write whole files; a write happens entirely or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bpfpatch.errors import FormatError

Source = str | os.PathLike[str] | BinaryIO
Target = str | os.PathLike[str] | BinaryIO


_MAX_LINKS: Final = 40
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


written: Final[list[str]] = []
"""Files that this process has replaced so far: who is interrupted is told of them."""


def write_all(target: Target, data: bytes) -> None:
    """Write a file, an open binary stream, or standard output (``-``).

    A file gets its new content in one step: the bytes go to a temporary file
    beside it, which then takes its name. It keeps the owner and the permissions
    of what it replaces, but no set-id bits. Where that fails, or a signal ends
    it, nothing is left behind, and what was there is still there. Devices and
    pipes are written to directly, also those that are a link to an open file
    (``/dev/stdout``, a shell's ``>(...)``).

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
    old = _status(target)
    if (old is not None and not stat.S_ISREG(old.st_mode)) or _is_open_file(target):
        with Path(target).open("wb") as stream:
            stream.write(data)
        return
    _replace(Path(os.path.realpath(target)), data, old)


def _status(target: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(target)  # noqa: PTH116 - follows links, as the kernel does
    except FileNotFoundError:
        return None


def _is_open_file(target: str | os.PathLike[str]) -> bool:
    """Whether a name leads to a descriptor: its holder reads what is written there."""
    path = Path(target)
    for _ in range(_MAX_LINKS):
        folder = os.path.realpath(path.parent)
        if folder.startswith("/proc/") and folder.endswith("/fd"):
            return True
        if not path.is_symlink():
            return False
        path = Path(folder) / path.readlink()
    return False


def _new_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _replace(path: Path, data: bytes, old: os.stat_result | None) -> None:
    name = None
    with _signals_held():
        try:
            handle, name = tempfile.mkstemp(prefix=".bpfpatch-", dir=path.parent)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                _take_over(stream.fileno(), old)
                os.fsync(stream.fileno())
            Path(name).replace(path)
            written.append(str(path))
        except BaseException:
            if name is not None:
                with contextlib.suppress(FileNotFoundError):
                    Path(name).unlink()
            raise
        _sync_directory(path.parent)


def _take_over(handle: int, old: os.stat_result | None) -> None:
    """Give a new file the owner and permissions of the one that it replaces.

    A set-id bit stays behind: the content is no longer what its owner gave it to.
    """
    if old is None:
        os.fchmod(handle, _new_mode())
        return
    with contextlib.suppress(PermissionError):
        os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode) & 0o1777)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait: a temporary file is removed, or has taken the name, first.

    By handlers and not by a mask: a signal that another thread gets runs the handler in the main
    one, and only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # None is a handler that is not Python's, and cannot be put back.
    ours = {number: handler for number, handler in before.items() if handler is not None}
    for number in ours:
        signal.signal(number, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for one in held[:1]:
            signal.raise_signal(one)


def _sync_directory(path: Path) -> None:
    """Make the new name last; not every file system can, and the content is safe without it."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
