"""Constant blinding for everyone, for a moment: net.core.bpf_jit_harden.

The setting is the whole machine's. It is set around one load and put back, whatever ends the
load: a child process waits at a pipe, and restores the setting when the pipe closes without a
word, as it does when this process is killed. What is restored is what was read from the setting
itself, and only where the setting still has a value of ours: an administrator who changes it
meanwhile keeps his own.

Processes take turns by a lock in a folder that only root can write to. The lock file is empty,
and nothing in it is read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .errors import KernelError

SETTING: Final = Path("/proc/sys/net/core/bpf_jit_harden")
LOCK: Final = Path("/run/bpfpatch/harden.lock")
WAIT_S: Final = 120
"""A load of 200,000 blinded constants takes the kernel this long."""

_KEEPER: Final = """
ours=" "
while read -r word; do
  [ "$word" = done ] && exit 0
  ours="$ours$word "
done
read -r now < "$1"
case "$ours" in *" $now "*) echo "$2" > "$1" ;; esac
"""
"""Reads each value that is about to be set, then ``done``; or restores ($2) the setting ($1)."""

_mutex = threading.RLock()


class _Change:
    """The setting while it is ours to change, and the process that outlives this one."""

    def __init__(self, lock: int) -> None:
        try:
            self.before = SETTING.read_text().strip()
        except OSError as error:
            what = f"reading {SETTING}, which the JIT provides"
            raise KernelError(error.errno or 0, what) from error
        self.values = [self.before]
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "bpfpatch-harden", str(SETTING), self.before],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),  # it holds the lock until the setting is restored
            start_new_session=True,  # a Ctrl-C at the terminal is not for it
        )

    def push(self, level: int) -> None:
        """Set a value, for the length of a block."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(b"%d\n" % level)
        self._keeper.stdin.flush()
        try:
            SETTING.write_text(str(level))
        except OSError as error:
            raise KernelError(error.errno or 0, f"setting {SETTING} to {level}") from error
        self.values.append(str(level))

    def pop(self) -> None:
        """Set what was there before the last `push`, unless another has set it since."""
        ours = self.values.pop()
        if SETTING.read_text().strip() == ours:
            SETTING.write_text(self.values[-1])

    def end(self) -> None:
        """Let the other process go."""
        self._keeper.communicate(b"done\n")


_current: _Change | None = None


@contextmanager
def harden(level: int = 2) -> Iterator[None]:
    """Set net.core.bpf_jit_harden for the length of a ``with`` block, and put it back.

    It is put back whatever ends the block or the process, SIGKILL included. Keep the block
    short: the setting is global, and other processes that want it wait.

    Args:
        level: 2 blinds every program's constants, 1 those of unprivileged users.

    Raises:
        KernelError: the setting cannot be changed, or another process holds it for too long.
    """
    global _current  # noqa: PLW0603 - the setting is the machine's, one change at a time
    with _mutex:
        if _current is not None:
            with _set(_current, level):
                yield
            return
        with _locked() as lock:
            change = _Change(lock)
            _current = change
            try:
                with _set(change, level):
                    yield
            finally:
                _current = None
                change.end()


@contextmanager
def unblinded() -> Iterator[None]:
    """Keep constants from being blinded for the length of a ``with`` block.

    Another process's `harden` would blind what is loaded here meanwhile. Where the setting
    cannot be changed it stays what it is.
    """
    if not os.access(SETTING, os.W_OK):
        yield
        return
    with harden(0):
        yield


@contextmanager
def _set(change: _Change, level: int) -> Iterator[None]:
    change.push(level)
    try:
        yield
    finally:
        change.pop()


@contextmanager
def _locked() -> Iterator[int]:
    """A descriptor of the lock file, locked."""
    fd = _open_lock()
    try:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise KernelError(
                        0,
                        f"another process has held net.core.bpf_jit_harden for {WAIT_S} seconds; "
                        f"`fuser {LOCK}` names it",
                    ) from None
                time.sleep(0.01)
        yield fd
    finally:
        os.close(fd)


def _open_lock() -> int:
    """Open the lock file, in a folder that no other user can write to."""
    folder = LOCK.parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_ours(os.lstat(folder), folder, stat.S_ISDIR)
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KernelError(error.errno or 0, f"opening the lock {LOCK}") from error
    try:
        _check_ours(os.fstat(fd), LOCK, stat.S_ISREG)
    except KernelError:
        os.close(fd)
        raise
    return fd


def _check_ours(found: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    """Refuse a folder or file that another user could have put there or can write to."""
    if not is_kind(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise KernelError(
            errno.EPERM,
            f"{path} belongs to another user, or others can write to it; remove it, since "
            "other users who can write to it would decide when programs are hardened",
        )
