"""Constant blinding for everyone, for a moment: net.core.bpf_jit_harden.

The setting is the whole machine's. It is set around one load and put back, whatever
ends the load. While it is changed, a locked file holds the value to put back: other
processes wait for the lock, and the first to take it after a process that was killed
puts back what that one could not.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from .errors import KernelError

SETTING: Final = Path("/proc/sys/net/core/bpf_jit_harden")
_LOCK_FILES: Final = (
    Path("/run/lock/bpfpatch-harden.lock"),
    Path("/run/bpfpatch-harden.lock"),
    Path("/tmp/bpfpatch-harden.lock"),
)
_WAIT_S: Final = 120
_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)

_mutex = threading.RLock()
_changed: list[_Change] = []


class _Change:
    """The setting, changed; `undo` may be called at any time and more than once."""

    def __init__(self, lock: int, before: str) -> None:
        self.lock = lock
        self.before = before
        self.pid = os.getpid()

    def undo(self) -> None:
        """Put the value back and say so in the lock file."""
        # A forked child has a copy of the list; the change is its parent's.
        if self not in _changed or self.pid != os.getpid():
            return
        SETTING.write_text(self.before)
        os.ftruncate(self.lock, 0)
        _changed.remove(self)


@contextmanager
def harden(level: int = 2) -> Iterator[None]:
    """Set net.core.bpf_jit_harden for the length of a ``with`` block, and put it back.

    It is put back after an exception, SIGINT, SIGTERM, SIGHUP and at exit; after SIGKILL by
    the next process that comes here. Keep the block short: the setting is global, and other
    processes that want it wait.

    Args:
        level: 2 blinds every program's constants, 1 those of unprivileged users.

    Raises:
        KernelError: the setting cannot be changed, or another process holds it for too long.
    """
    with _mutex:
        if _changed:
            # Nested: the outer block puts back.
            before = SETTING.read_text().strip()
            _write(level)
            try:
                yield
            finally:
                SETTING.write_text(before)
            return
        with _locked() as lock, _signals_caught():
            change = _begin(lock)
            try:
                _write(level)
                yield
            finally:
                change.undo()


@contextmanager
def unblinded() -> Iterator[None]:
    """See to it that nobody has constants blinded for the length of a ``with`` block.

    Another process's `harden` would blind what is loaded here meanwhile. Where the setting
    cannot be changed it stays what it is.
    """
    if not os.access(SETTING, os.W_OK):
        yield
        return
    with harden(0):
        yield


def _write(level: int) -> None:
    try:
        SETTING.write_text(str(level))
    except OSError as error:
        raise KernelError(error.errno or 0, f"setting {SETTING} to {level}") from error


def _begin(lock: int) -> _Change:
    """Note what to put back, before anything changes."""
    left = os.pread(lock, 16, 0).decode("ascii", "replace").strip()
    try:
        if left.isdigit():
            # Its owner was killed: what it noted is the true value.
            SETTING.write_text(left)
        before = SETTING.read_text().strip()
    except OSError as error:
        raise KernelError(error.errno or 0, f"reading {SETTING}, which the JIT provides") from error
    os.pwrite(lock, before.encode(), 0)
    change = _Change(lock, before)
    _changed.append(change)
    return change


@contextmanager
def _locked() -> Iterator[int]:
    """A descriptor of the lock file, locked."""
    fd = _open_lock()
    try:
        end = time.monotonic() + _WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise KernelError(
                        0, f"another process has held bpf_jit_harden for {_WAIT_S} seconds"
                    ) from None
                time.sleep(0.01)
        yield fd
    finally:
        os.close(fd)


def _open_lock() -> int:
    for path in _LOCK_FILES:
        with suppress(OSError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    raise KernelError(0, f"no lock file can be made; tried {', '.join(map(str, _LOCK_FILES))}")


@contextmanager
def _signals_caught() -> Iterator[None]:
    """Put the setting back before a signal ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        _undo_all()
        handler = before[signal.Signals(number)]
        signal.signal(number, handler)
        if callable(handler):
            handler(number, frame)
        else:
            os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # None is a handler that is not Python's, and cannot be put back.
    caught = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in caught:
            signal.signal(number, end)
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


@atexit.register
def _undo_all() -> None:
    for change in list(_changed):
        change.undo()
