"""Another process: its memory, its descriptors, and what it may do.

Source: process_vm_readv(2), pidfd_open(2), pidfd_getfd(2), proc_pid_status(5),
capabilities(7); linux v6.18, kernel/bpf/syscall.c, bpf_prog_load().
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from .syscall import Handle

_PIDFD_GETFD: Final = 438
_PIDFD_THREAD: Final = os.O_EXCL
_CLONE_NEWNET: Final = 0x40000000
_SETNS: Final = {"x86_64": 308, "aarch64": 268}

CAP_NET_ADMIN: Final = 12
CAP_SYS_ADMIN: Final = 21
CAP_SYS_PTRACE: Final = 19
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("process_vm_readv", "process_vm_writev"):
        function = getattr(libc, name)
        function.restype = ctypes.c_ssize_t
        function.argtypes = (
            ctypes.c_int,
            ctypes.POINTER(_Iovec),
            ctypes.c_ulong,
            ctypes.POINTER(_Iovec),
            ctypes.c_ulong,
            ctypes.c_ulong,
        )
    libc.syscall.restype = ctypes.c_long
    return libc


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


class Remote:
    """A thread of another process, for the length of a ``with`` block.

    What is read of it is its own only if it was alive afterwards: threads'
    numbers are used again.
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._pidfd: Handle | None = None

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pidfd is not None:
            self._pidfd.close()

    def read(self, address: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Bytes of its memory.

        Raises:
            OSError: EFAULT, not all of that is there.
        """
        out = np.empty(size, "u1")
        self._copy("process_vm_readv", address, out)
        return out

    def write(self, address: int, data: np.ndarray[Any, Any]) -> None:
        """Put bytes into its memory.

        Raises:
            OSError: EFAULT, not all of that is there.
        """
        self._copy("process_vm_writev", address, data)

    def read_string(self, address: int, most: int) -> bytes:
        """A string up to its NUL, or ``most`` bytes of it.

        Raises:
            OSError: EFAULT, it is not there.
        """
        out = b""
        while len(out) < most:
            # No further than its page: the next one need not be there.
            at = address + len(out)
            size = min(most - len(out), mmap.PAGESIZE - at % mmap.PAGESIZE)
            part, nul, _ = self.read(at, size).tobytes().partition(b"\0")
            out += part
            if nul:
                break
        return out

    def _copy(self, name: str, address: int, data: np.ndarray[Any, Any]) -> None:
        size = data.nbytes
        if not size:
            return
        if not 0 < address < 1 << 63:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        ours, theirs = _Iovec(data.ctypes.data, size), _Iovec(address, size)
        done = getattr(_libc(), name)(self.tid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
        if done < 0:
            raise _error()
        if done != size:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def take(self, fd: int) -> Handle:
        """A copy of one of its descriptors.

        Raises:
            OSError: EBADF, it has no such; EPERM, it is not ours to take.
        """
        if self._pidfd is None:
            self._pidfd = Handle(_open_pidfd(self.tid))
        done = _libc().syscall(
            ctypes.c_long(_PIDFD_GETFD),
            ctypes.c_int(self._pidfd.fd),
            ctypes.c_int(fd),
            ctypes.c_uint(0),
        )
        if done < 0:
            raise _error()
        return Handle(int(done))

    def status(self) -> dict[str, str]:
        """The fields of /proc/TID/status.

        Raises:
            OSError: it is gone.
        """
        lines = Path(f"/proc/{self.tid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def capabilities(self) -> int:
        """Its effective capabilities in our user namespace, as bits; 0 in another one's.

        Raises:
            OSError: it is gone.
        """
        if not self.shares("user"):
            return 0
        return int(self.status()["CapEff"], 16)

    def shares(self, namespace: str) -> bool:
        """Whether it is in the same namespace as we.

        Raises:
            OSError: it is gone.
        """
        theirs, ours = (
            Path(f"/proc/{task}/ns/{namespace}").readlink() for task in (self.tid, "thread-self")
        )
        return theirs == ours

    @contextmanager
    def network(self) -> Iterator[None]:
        """Be in its network namespace, this thread only: network devices' numbers are its own.

        Raises:
            OSError: it is gone, or we may not.
        """
        if self.shares("net"):
            yield
            return
        with (
            Handle(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as own,
            Handle(os.open(f"/proc/{self.tid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as theirs,
        ):
            _set_namespace(theirs.fd)
            try:
                yield
            finally:
                _set_namespace(own.fd)


def _open_pidfd(tid: int) -> int:
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError as error:
        # Linux before 6.9 opens processes only; its threads share descriptors nearly always.
        if error.errno != errno.EINVAL:
            raise
    return os.pidfd_open(int(Remote(tid).status()["Tgid"]))


def _set_namespace(fd: int) -> None:
    number = _SETNS[platform.machine()]
    done = _libc().syscall(ctypes.c_long(number), ctypes.c_int(fd), ctypes.c_int(_CLONE_NEWNET))
    if done < 0:
        raise _error()


def own_capabilities() -> int:
    """Our effective capabilities, as bits.

    Raises:
        OSError: /proc is not there.
    """
    return int(Remote(os.getpid()).status()["CapEff"], 16)
