"""Start a command with the filter of `bpfpatch.bpf.seccomp` on it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from . import seccomp
from .errors import KernelError
from .remote import CAP_BPF, CAP_SYS_ADMIN, CAP_SYS_PTRACE, own_capabilities

_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
_NAMES: Final = {
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN, for a filter that leaves the command its privileges",
    CAP_BPF: "CAP_BPF, to load programs for it",
    CAP_SYS_PTRACE: "CAP_SYS_PTRACE, to take over its descriptors",
}
_NO_ATTACH: Final = 3
#: Steps of a child between fork and exec, as its parent names them.
_FILTER: Final = 1
_EXEC: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Spawned:
    """A command that runs.

    Attributes:
        pid: its process, which has to be waited for.
        listener: what its loads are answered by.
    """

    pid: int
    listener: seccomp.Listener


def check_privileges() -> None:
    """See whether a command could be intercepted, before it is started.

    Raises:
        KernelError: a capability or something of the kernel's is missing.
    """
    seccomp.machine()
    try:
        mine = own_capabilities()
        scope = int(_YAMA.read_text()) if _YAMA.exists() else 0
    except OSError as error:
        raise KernelError(error.errno or 0, "reading /proc, which has to be mounted") from error
    wanted = [CAP_SYS_ADMIN]
    if not mine >> CAP_SYS_ADMIN & 1:
        wanted.append(CAP_BPF)
    if scope:
        wanted.append(CAP_SYS_PTRACE)
    missing = [_NAMES[bit] for bit in wanted if not mine >> bit & 1]
    if missing:
        raise KernelError(1, f"intercepting a command's loads needs {'; and '.join(missing)}")
    if scope == _NO_ATTACH:
        raise KernelError(1, f"{_YAMA} is 3: no process may take over another one's descriptors")
    seccomp.check_available()


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    mask: Collection[int] | None = None,
) -> Spawned:
    """Start a command whose loads, and those of all that it starts, come to a listener.

    Call `check_privileges` first. The child has our terminal, process group,
    standard streams and signal mask; other descriptors of ours are closed if
    they are marked so, which is Python's default.

    Args:
        argv: the command and its arguments; searched for in PATH.
        env: its environment; ours by default.
        mask: signals that are blocked for it; those that are for us by default.

    Raises:
        OSError: the command cannot be executed; has ``filename``.
        KernelError: the filter cannot be installed.
    """
    if not argv:
        raise ValueError("there is no command")
    environment = dict(os.environ if env is None else env)
    prepared = seccomp.prepare_install()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        with warnings.catch_warnings():
            # Other threads, as NumPy's, do not matter to what the child does until it executes.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            _child(theirs, prepared, list(argv), environment, mask)
        theirs.close()
        try:
            return Spawned(pid, _listener(ours, argv[0]))
        except BaseException:
            # It has ended, or is about to: it found the socket closed, or nothing to execute.
            ours.close()
            os.waitpid(pid, 0)
            raise


def _listener(ours: socket.socket, command: str) -> seccomp.Listener:
    """The listener that the child sends; then it executes the command, or says why not."""
    said, fds, _, _ = socket.recv_fds(ours, 8, 1)
    if not fds:
        raise _failed(said, command)
    listener = seccomp.Listener(fds[0])
    why = ours.recv(8)
    if why:
        listener.close()
        raise _failed(why, command)
    return listener


def _failed(said: bytes, command: str) -> Exception:
    if len(said) < 8:
        return KernelError(0, "the command ended before it was executed")
    step, number = struct.unpack("<ii", said)
    if step == _EXEC:
        return OSError(number, os.strerror(number), command)
    hint = (
        "another process listens to this one's system calls already, such as a container's "
        "runtime or another `bpfpatch intercept`"
        if number == 16
        else "seccomp(2)"
    )
    return KernelError(number, f"installing the filter ({hint})")


def _child(
    theirs: socket.socket,
    prepared: Any,
    argv: list[str],
    env: dict[str, str],
    mask: Collection[int] | None,
) -> NoReturn:
    """Between fork and exec: nothing here may wait for a lock that another thread held."""
    step = _FILTER
    try:
        # Python ignores these, which would be passed on.
        for name in ("SIGPIPE", "SIGXFSZ"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        fd = seccomp.install(prepared)
        socket.send_fds(theirs, [b"listener"], [fd])
        os.close(fd)
        step = _EXEC
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        with suppress(OSError):
            theirs.send(struct.pack("<ii", step, error.errno or 0))
    finally:
        os._exit(127)
    raise AssertionError
