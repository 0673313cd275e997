"""Run a command, and answer the loads that it and all that it starts ask for.

::

    def on_load(request):
        patches = bp.PatchList(request.program)
        patches.insert_before(patches.find(bp.isa.is_exit), bp.Body.asm("r0 = 0"))
        return patches.linearize()

    status = bpf.intercept(["xdp-loader", "load", "veth0", "lb.o"], on_load)
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from bpfpatch.errors import BpfPatchError
from bpfpatch.program import Program

from .loadcall import CallVerdict, LoadCall, NotOursError
from .loadedbtf import forget_btf
from .loadrequest import Attempt, HasProgram, LoadRequest, code_of
from .log import summarize
from .remote import Remote
from .seccomp import Listener, Notification
from .spawn import check_privileges, spawn

Ending = Literal["loaded", "refused", "let through", "gone"]
Answer = Program | HasProgram | Attempt | None
OnLoad = Callable[[LoadRequest], Answer]

_AT_ONCE: Final = 16
"""Loads that are worked on at the same time; others wait."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadOutcome:
    """What became of one load.

    Attributes:
        request: the load; None where it could not be read. Its descriptors are still open.
        tid: the thread that asked.
        ending: "loaded" or "refused" by the kernel, "let through" for the kernel to do
            itself, or "gone": the thread ended, or was interrupted, before it was answered.
        verdict: what the kernel said; None where it was not asked.
        is_rewritten: whether what it judged was the function's answer.
        note: why it was let through, or why what was loaded is the original.
    """

    request: LoadRequest | None
    tid: int
    ending: Ending
    verdict: CallVerdict | None = None
    is_rewritten: bool = False
    note: str = ""


OnDone = Callable[[LoadOutcome], None]


def intercept(
    argv: Sequence[str],
    on_load: OnLoad | None = None,
    on_done: OnDone | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a command to its end, and have a function decide what it loads.

    The function is called in a thread of its own for each load, several at once where the
    command asks so. What it raises, or returns and the kernel refuses, is told to ``on_done``,
    and the original is loaded.

    Args:
        argv: the command and its arguments.
        on_load: gets each load; returns the program to load instead (or what a pipeline or
            linearizing gave), an `Attempt` of the request that was loaded, or None for the
            original. Maps that the program refers to need to be open only until it is loaded.
        on_done: gets what became of each.
        env: the command's environment; ours by default.

    Returns:
        The command's exit status, or the negative number of the signal that ended it. Other
        processes that it has left are waited for, since their loads need an answer, too.

    Raises:
        KernelError: a privilege or something of the kernel's is missing.
        OSError: the command cannot be executed.
    """
    with Interception(argv, on_load, on_done, env=env) as running:
        _, status = os.waitpid(running.pid, 0)
        running.join()
    return os.waitstatus_to_exitcode(status)


class Interception:
    """A command that runs, and threads that answer its loads.

    Attributes:
        pid: the command, which the caller has to wait for.
    """

    def __init__(
        self,
        argv: Sequence[str],
        on_load: OnLoad | None = None,
        on_done: OnDone | None = None,
        *,
        env: Mapping[str, str] | None = None,
        mask: Collection[int] | None = None,
    ) -> None:
        """Start the command; arguments and errors as of `intercept`, ``mask`` as of `spawn`."""
        check_privileges()
        self._on_load = on_load
        self._on_done = on_done
        self._error: Exception | None = None
        spawned = spawn(argv, env, mask)
        self.pid = spawned.pid
        self._listener = spawned.listener
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "bpfpatch-load")
        self._thread = threading.Thread(target=self._serve, name="bpfpatch-loads", daemon=True)
        self._thread.start()

    def __enter__(self) -> Interception:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no process is left whose loads come here; whether that is so."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Answer what has been asked, and no more: later loads fail with ENOSYS.

        Raises:
            Exception: the first that ``on_done`` raised.
        """
        if self._waker < 0:
            return
        os.write(self._waker, b"x")
        self._thread.join()
        self._pool.shutdown()
        self._listener.close()
        os.close(self._waker)
        os.close(self._woken)
        self._waker = -1
        forget_btf()
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        try:
            self._receive()
        except Exception as error:
            self._error = self._error or error
            # Nothing would answer any more: what waits must not wait for ever.
            self._listener.close()

    def _receive(self) -> None:
        poll = select.poll()
        poll.register(self._listener.fd, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._woken in ready:
                return
            said = ready.get(self._listener.fd, 0)
            if said & select.POLLIN:
                one = self._listener.receive()
                if one is not None:
                    self._pool.submit(self._answer, one)
            elif said:
                return

    def _answer(self, one: Notification) -> None:
        """Answer a call whatever happens: its thread waits, and nothing else would wake it."""
        try:
            with Remote(one.tid) as remote:
                outcome = answer(self._listener, one, remote, self._on_load)
        except Exception as error:
            self._error = self._error or error
            with suppress(OSError):
                self._listener.fail(one, errno.ENOSYS)
            return
        try:
            if self._on_done is not None:
                self._on_done(outcome)
        except Exception as error:
            self._error = self._error or error
        finally:
            _close(outcome)


def _close(outcome: LoadOutcome) -> None:
    if outcome.verdict is not None and outcome.verdict.handle is not None:
        outcome.verdict.handle.close()
    if outcome.request is not None:
        outcome.request.close()


def answer(
    listener: Listener, one: Notification, remote: Remote, on_load: OnLoad | None
) -> LoadOutcome:
    """Answer one call, and say what became of it."""
    request = None
    try:
        if not one.tid:
            raise NotOursError("its process is in a namespace that cannot be seen from here")
        call = LoadCall(remote, one)
        try:
            request = LoadRequest(call)
        except BaseException:
            call.close()
            raise
        if request.is_loader:
            raise NotOursError(
                "it is a light skeleton's loader: what it loads, the kernel loads by itself"
            )
    except NotOursError as error:
        return _let_through(listener, one, request, str(error))
    except Exception as error:
        return _let_through(listener, one, request, _said(error))
    if not listener.is_valid(one):
        return LoadOutcome(request, one.tid, "gone")
    try:
        verdict, is_rewritten, note = _judge(request, on_load)
        ending = _reply(listener, one, request, verdict)
    except Exception as error:
        return _let_through(listener, one, request, _said(error))
    return LoadOutcome(request, one.tid, ending, verdict, is_rewritten, note)


def _let_through(
    listener: Listener, one: Notification, request: LoadRequest | None, why: str
) -> LoadOutcome:
    is_there = listener.let_through(one)
    return LoadOutcome(request, one.tid, "let through" if is_there else "gone", note=why)


def _judge(request: LoadRequest, on_load: OnLoad | None) -> tuple[CallVerdict, bool, str]:
    """(the kernel's verdict, whether it is on the answer, why it is not)."""
    try:
        new = None if on_load is None else on_load(request)
        if isinstance(new, Attempt):
            return new.verdict, new.program is not None, ""
        code = None
        if new is not None:
            code = code_of(new if isinstance(new, Program) else new.program)
    except Exception as error:
        return request.call.make(), False, _said(error)
    if code is None:
        return request.call.make(), False, ""
    verdict = request.call.make(code)
    # A log that its buffer had no room for is a verdict: the process asks again with more.
    if verdict.handle is not None or (verdict.errno == errno.ENOSPC and verdict.log.size):
        return verdict, True, ""
    why = request.call.make(code, log_level=1)
    if why.handle is not None:
        why.handle.close()
    original = request.call.make()
    if original.handle is None:
        # It would have been refused in any case.
        return original, False, ""
    return original, False, _refusal(verdict, why)


def _refusal(verdict: CallVerdict, why: CallVerdict) -> str:
    said = summarize(why.text).message
    name = errno.errorcode.get(verdict.errno, str(verdict.errno))
    return f"the kernel refuses what was made of it: {said or name}"


def _reply(
    listener: Listener, one: Notification, request: LoadRequest, verdict: CallVerdict
) -> Ending:
    if not listener.is_valid(one):
        return "gone"
    number = verdict.errno
    try:
        request.call.write_back(verdict)
    except OSError as error:
        number = error.errno or errno.EFAULT
    if verdict.handle is not None and not number:
        try:
            return "loaded" if listener.give(one, verdict.handle.fd) else "gone"
        except OSError as error:
            number = error.errno or errno.EMFILE
    return "refused" if listener.fail(one, number) else "gone"


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, BpfPatchError) and text else f"{type(error).__name__}: {text}"
