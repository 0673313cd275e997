"""seccomp's user notification: one process answers another one's BPF_PROG_LOAD.

A filter lets every system call through at full speed but bpf(2) with the command
BPF_PROG_LOAD, which waits until the holder of the listener has answered it.

Source: linux v6.18, include/uapi/linux/seccomp.h, kernel/seccomp.c,
include/uapi/linux/audit.h (AUDIT_ARCH_*), include/uapi/linux/filter.h;
the system call's numbers from arch/*/entry/syscalls and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .errors import KernelError
from .syscall import Cmd, Handle

_NOTIF: Final = np.dtype(
    [
        ("id", "u8"),
        ("pid", "u4"),
        ("flags", "u4"),
        ("nr", "i4"),
        ("arch", "u4"),
        ("ip", "u8"),
        ("args", "u8", 6),
    ]
)
_RESP: Final = np.dtype([("id", "u8"), ("val", "i8"), ("error", "i4"), ("flags", "u4")])
_ADDFD: Final = np.dtype(
    [("id", "u8"), ("flags", "u4"), ("srcfd", "u4"), ("newfd", "u4"), ("newfd_flags", "u4")]
)
_FILTER: Final = np.dtype([("code", "u2"), ("jt", "u1"), ("jf", "u1"), ("k", "u4")])


def _iowr(number: int, size: int, direction: int) -> int:
    """An ioctl's number. Source: linux v6.18, include/uapi/asm-generic/ioctl.h."""
    return direction << 30 | size << 16 | ord("!") << 8 | number


_WRITE: Final = 1
_BOTH: Final = 3
_RECV: Final = _iowr(0, _NOTIF.itemsize, _BOTH)
_SEND: Final = _iowr(1, _RESP.itemsize, _BOTH)
_ID_VALID: Final = _iowr(2, 8, _WRITE)
_ADD_FD: Final = _iowr(3, _ADDFD.itemsize, _WRITE)
_SET_FLAGS: Final = _iowr(4, 8, _WRITE)

_SET_MODE_FILTER: Final = 1
_GET_ACTION_AVAIL: Final = 2
_NEW_LISTENER: Final = 1 << 3
_WAIT_KILLABLE_RECV: Final = 1 << 5
_RET_ALLOW: Final = 0x7FFF0000
_RET_USER_NOTIF: Final = 0x7FC00000
_RESP_CONTINUE: Final = 1
_ADDFD_SEND: Final = 1 << 1
_SYNC_WAKE_UP: Final = 1

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQ: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_NR_AT: Final = 0
_ARCH_AT: Final = 4
_COMMAND_AT: Final = 16  # the low half of the first argument, on a little-endian machine


@dataclass(frozen=True, slots=True)
class SyscallArch:
    """What a filter has to know of a machine.

    Attributes:
        arch: AUDIT_ARCH_* of its 64-bit programs.
        bpf: number of bpf(2).
        seccomp: number of seccomp(2).
    """

    arch: int
    bpf: int
    seccomp: int


MACHINES: Final = {
    "x86_64": SyscallArch(0xC000003E, 321, 317),
    "aarch64": SyscallArch(0xC00000B7, 280, 277),
}


def machine(name: str | None = None) -> SyscallArch:
    """This machine's numbers, or those of another by its ``uname -m``.

    Raises:
        KernelError: they are not known here.
    """
    name = name or platform.machine()
    found = MACHINES.get(name)
    if found is None:
        known = ", ".join(MACHINES)
        raise KernelError(0, f"loads can be intercepted on {known}, and this is {name}")
    return found


def load_filter(of: SyscallArch) -> NDArray[Any]:
    """(k,) struct sock_filter: notify of BPF_PROG_LOAD, let all else through.

    Calls of another architecture (32-bit programs, x32) have another number or
    arch, and are let through.
    """
    rows = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQ, 0, 5, of.arch),
        (_LOAD, 0, 0, _NR_AT),
        (_JUMP_EQ, 0, 3, of.bpf),
        (_LOAD, 0, 0, _COMMAND_AT),
        (_JUMP_EQ, 0, 1, int(Cmd.PROG_LOAD)),
        (_RETURN, 0, 0, _RET_USER_NOTIF),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]
    return np.array(rows, _FILTER)


class _Fprog(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@cache
def _syscall() -> Any:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call


def _seccomp(operation: int, flags: int, argument: Any) -> int:
    done = _syscall()(
        ctypes.c_long(machine().seccomp),
        ctypes.c_uint(operation),
        ctypes.c_uint(flags),
        argument,
    )
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(done)


def check_available() -> None:
    """See whether this kernel has user notification at all.

    Raises:
        KernelError: it has not.
    """
    action = ctypes.c_uint32(_RET_USER_NOTIF)
    try:
        _seccomp(_GET_ACTION_AVAIL, 0, ctypes.byref(action))
    except OSError as error:
        raise KernelError(
            error.errno or 0,
            "this kernel lets no process answer another one's system calls (SECCOMP_FILTER, "
            "Linux 5.14)",
        ) from error


def prepare_install() -> Any:
    """Everything that `install` needs, for a child after fork to have."""
    _syscall()
    rows = load_filter(machine())
    return rows, _Fprog(len(rows), rows.ctypes.data)


def install(prepared: Any) -> int:
    """Put the filter on this thread, for good, and on all that it starts from now on.

    Returns:
        The listener's descriptor.

    Raises:
        OSError: EACCES without CAP_SYS_ADMIN, EBUSY where there is a listener already.
    """
    _, program = prepared
    try:
        # Go sends its threads a signal every few milliseconds, each of which would start the
        # call again.
        return _seccomp(
            _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE_RECV, ctypes.byref(program)
        )
    except OSError as error:
        if error.errno != errno.EINVAL:  # Linux before 5.19 does not know the flag
            raise
    return _seccomp(_SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))


@dataclass(frozen=True, slots=True)
class Notification:
    """A call that waits for an answer.

    Attributes:
        id: the number to answer by.
        tid: of the thread that waits, as we see it; 0 for one that we cannot see.
        address: of the attributes in its memory.
        size: bytes of them.
    """

    id: int
    tid: int
    address: int
    size: int


class Listener(Handle):
    """What notifications come from and answers go to.

    An answer to a call that is gone, since its thread was killed, is not an error:
    each of the verbs says whether it arrived.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        # The waiting thread and the one that answers it want the same processor.
        with suppress(OSError):
            fcntl.ioctl(self.fd, _SET_FLAGS, _SYNC_WAKE_UP)

    def receive(self) -> Notification | None:
        """The next call; None where it is gone by now.

        Raises:
            OSError: there will be no more.
        """
        while True:
            room = bytearray(_NOTIF.itemsize)  # the kernel wants zeros
            try:
                fcntl.ioctl(self.fd, _RECV, room)
                break
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return None
                raise
        one = np.frombuffer(room, _NOTIF)[0]
        return Notification(
            int(one["id"]), int(one["pid"]), int(one["args"][1]), int(one["args"][2]) & 0xFFFFFFFF
        )

    def is_valid(self, one: Notification) -> bool:
        """Whether the thread waits still: what was read by its number before this was its own."""
        return self._told(_ID_VALID, np.array([one.id], "u8"))

    def let_through(self, one: Notification) -> bool:
        """Have the kernel run the call as it is."""
        return self._answer(one, flags=_RESP_CONTINUE)

    def fail(self, one: Notification, number: int) -> bool:
        """Have the call fail with an error's number."""
        return self._answer(one, error=-number)

    def give(self, one: Notification, fd: int) -> bool:
        """Have the call return a copy of one of our descriptors, closed on exec as bpf(2)'s are.

        Raises:
            OSError: EMFILE, the caller has no room for another.
        """
        row = np.zeros(1, _ADDFD)
        row["id"], row["flags"], row["srcfd"] = one.id, _ADDFD_SEND, fd
        row["newfd_flags"] = os.O_CLOEXEC
        return self._told(_ADD_FD, row)

    def _answer(self, one: Notification, *, error: int = 0, flags: int = 0) -> bool:
        row = np.zeros(1, _RESP)
        row["id"], row["error"], row["flags"] = one.id, error, flags
        return self._told(_SEND, row)

    def _told(self, request: int, row: NDArray[Any]) -> bool:
        while True:
            try:
                fcntl.ioctl(self.fd, request, row.tobytes())
                return True
            except InterruptedError:
                continue
            except OSError as failed:
                # ENOENT: the thread is gone. EINPROGRESS: it was answered.
                if failed.errno not in (errno.ENOENT, errno.EINPROGRESS):
                    raise
                return False
