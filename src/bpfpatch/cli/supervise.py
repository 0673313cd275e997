"""Run a command in the foreground: its signals, its terminal, its exit status."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from bpfpatch.bpf.intercept import Interception, OnDone, OnLoad

_PASSED_ON: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
)
_ENDING: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_FROM_KERNEL: Final = 0x80  # SI_KERNEL: typed at the terminal, so the command has it, too
_SOON_S: Final = 0.5
_OFTEN_S: Final = 0.1


def supervise(
    argv: Sequence[str],
    on_load: OnLoad | None,
    on_done: OnDone,
    on_usr1: Callable[[], None] | None,
    say: Callable[[str], None],
) -> int:
    """Run a command, and be to its parent what it would be.

    Signals that are sent to us are passed on; what is typed at the terminal reaches the command
    by itself, which is in our process group. Where it stops, we stop, so that a shell's job
    control goes on working.

    Args:
        argv: the command and its arguments.
        on_load: see `bpfpatch.bpf.intercept`.
        on_done: the same.
        on_usr1: called for SIGUSR1, which is passed on otherwise.
        say: tells the user something.

    Returns:
        The wait status.

    Raises:
        KernelError: a privilege or something of the kernel's is missing.
        OSError: the command cannot be executed.
    """
    # Children of a process that ignores it leave no status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        with Interception(argv, on_load, on_done, env=_environment(), mask=before) as running:
            # A shell in the command may put us into the background, from where we speak, too.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            status = _follow(running.pid, watched, on_usr1)
            _wait_for_others(running, watched, on_usr1, say)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return status


def _follow(pid: int, watched: set[signal.Signals], on_usr1: Callable[[], None] | None) -> int:
    """Pass signals on until the command has ended; its wait status."""
    while True:
        info = signal.sigwaitinfo(watched)
        number = info.si_signo
        if number == signal.SIGCHLD:
            status = _changed(pid)
            if status is not None:
                return status
        elif number == signal.SIGUSR1 and on_usr1 is not None:
            on_usr1()
        elif info.si_code != _FROM_KERNEL:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _changed(pid: int) -> int | None:
    """The command's wait status if it has ended; we stop where it has stopped."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not found:
            return None
        if not os.WIFSTOPPED(status):
            return status
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)


def _wait_for_others(
    running: Interception,
    watched: set[signal.Signals],
    on_usr1: Callable[[], None] | None,
    say: Callable[[str], None],
) -> None:
    """Answer the loads of processes that the command has left behind."""
    if running.join(_SOON_S):
        return
    say("the command has ended, and processes that it started go on: waiting for these")
    while not running.join(0):
        info = signal.sigtimedwait(watched, _OFTEN_S)
        if info is None or info.si_signo == signal.SIGCHLD:
            continue
        if info.si_signo == signal.SIGUSR1 and on_usr1 is not None:
            on_usr1()
        elif info.si_signo in _ENDING:
            say("interrupted: what is left of the command can load no more programs (ENOSYS)")
            return


def end_like(status: int) -> int:
    """End as the command did: by the same signal, or by returning its exit status."""
    if not os.WIFSIGNALED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    # The command has dumped core already, if any.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number


def _environment() -> dict[str, str]:
    """Ours, without what Python has put in: LC_CTYPE, where the locale would be C."""
    out = dict(os.environ)
    try:
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return out
    if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
        out.pop("LC_CTYPE", None)
    return out
