"""bpf(2) itself: commands, their attributes as NumPy records, and file descriptors.

Source: linux v6.18, include/uapi/linux/bpf.h, enum bpf_cmd and union bpf_attr; the
system call's numbers from arch/*/entry/syscalls and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import weakref
from enum import IntEnum
from functools import cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from .errors import KernelError

_NUMBERS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "s390x": 351,
    "ppc64le": 361,
    "ppc64": 361,
    "armv7l": 386,
    "i686": 357,
}
_FIRST_FD: Final = 3
NAME_LEN: Final = 15
"""Characters of a program's or map's name."""


class Cmd(IntEnum):
    """Commands of bpf(2) that are used here."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    ENABLE_STATS = 32
    PROG_BIND_MAP = 35


def _attr(*fields: tuple[str, str]) -> np.dtype[Any]:
    return np.dtype(list(fields), align=True)


ATTRS: Final[dict[Cmd, np.dtype[Any]]] = {
    Cmd.MAP_CREATE: _attr(
        ("map_type", "u4"),
        ("key_size", "u4"),
        ("value_size", "u4"),
        ("max_entries", "u4"),
        ("map_flags", "u4"),
        ("inner_map_fd", "u4"),
        ("numa_node", "u4"),
        ("map_name", "S16"),
        ("map_ifindex", "u4"),
        ("btf_fd", "u4"),
        ("btf_key_type_id", "u4"),
        ("btf_value_type_id", "u4"),
        ("btf_vmlinux_value_type_id", "u4"),
        ("map_extra", "u8"),
    ),
    Cmd.PROG_LOAD: _attr(
        ("prog_type", "u4"),
        ("insn_cnt", "u4"),
        ("insns", "u8"),
        ("license", "u8"),
        ("log_level", "u4"),
        ("log_size", "u4"),
        ("log_buf", "u8"),
        ("kern_version", "u4"),
        ("prog_flags", "u4"),
        ("prog_name", "S16"),
        ("prog_ifindex", "u4"),
        ("expected_attach_type", "u4"),
        ("prog_btf_fd", "u4"),
        ("func_info_rec_size", "u4"),
        ("func_info", "u8"),
        ("func_info_cnt", "u4"),
        ("line_info_rec_size", "u4"),
        ("line_info", "u8"),
        ("line_info_cnt", "u4"),
        ("attach_btf_id", "u4"),
        ("attach_prog_fd", "u4"),
        ("core_relo_cnt", "u4"),
        ("fd_array", "u8"),
        ("core_relos", "u8"),
        ("core_relo_rec_size", "u4"),
        ("log_true_size", "u4"),
        ("prog_token_fd", "i4"),
        ("fd_array_cnt", "u4"),
        ("signature", "u8"),
        ("signature_size", "u4"),
        ("keyring_id", "i4"),
    ),
    Cmd.PROG_TEST_RUN: _attr(
        ("prog_fd", "u4"),
        ("retval", "u4"),
        ("data_size_in", "u4"),
        ("data_size_out", "u4"),
        ("data_in", "u8"),
        ("data_out", "u8"),
        ("repeat", "u4"),
        ("duration", "u4"),
        ("ctx_size_in", "u4"),
        ("ctx_size_out", "u4"),
        ("ctx_in", "u8"),
        ("ctx_out", "u8"),
        ("flags", "u4"),
        ("cpu", "u4"),
        ("batch_size", "u4"),
    ),
    Cmd.OBJ_PIN: _attr(("pathname", "u8"), ("bpf_fd", "u4"), ("file_flags", "u4")),
    Cmd.OBJ_GET: _attr(("pathname", "u8"), ("bpf_fd", "u4"), ("file_flags", "u4")),
    Cmd.OBJ_GET_INFO_BY_FD: _attr(("bpf_fd", "u4"), ("info_len", "u4"), ("info", "u8")),
    Cmd.BTF_LOAD: _attr(
        ("btf", "u8"),
        ("btf_log_buf", "u8"),
        ("btf_size", "u4"),
        ("btf_log_size", "u4"),
        ("btf_log_level", "u4"),
    ),
    Cmd.MAP_LOOKUP_BATCH: _attr(
        ("in_batch", "u8"),
        ("out_batch", "u8"),
        ("keys", "u8"),
        ("values", "u8"),
        ("count", "u4"),
        ("map_fd", "u4"),
        ("elem_flags", "u8"),
        ("flags", "u8"),
    ),
    Cmd.PROG_BIND_MAP: _attr(("prog_fd", "u4"), ("map_fd", "u4"), ("flags", "u4")),
    Cmd.ENABLE_STATS: _attr(("type", "u4")),
    **dict.fromkeys(
        (
            Cmd.MAP_LOOKUP_ELEM,
            Cmd.MAP_UPDATE_ELEM,
            Cmd.MAP_DELETE_ELEM,
            Cmd.MAP_GET_NEXT_KEY,
            Cmd.MAP_FREEZE,
        ),
        _attr(("map_fd", "u4"), ("key", "u8"), ("value", "u8"), ("flags", "u8")),
    ),
    **dict.fromkeys(
        (Cmd.PROG_GET_FD_BY_ID, Cmd.MAP_GET_FD_BY_ID, Cmd.BTF_GET_FD_BY_ID),
        _attr(("id", "u4"), ("next_id", "u4"), ("open_flags", "u4")),
    ),
}
"""The attributes of each command, laid out as C does."""

Value = int | bytes | NDArray[Any]


@cache
def _entry() -> tuple[int, Any]:
    """The system call's number and libc's way to make it."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise KernelError(0, f"the number of bpf(2) on {platform.machine()} is not known here")
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return number, call


def bpf(command: Cmd, **fields: Value) -> tuple[int, NDArray[Any]]:
    """Make the system call.

    Args:
        command: what to do.
        fields: attributes that are not 0. Where the attribute is an address, bytes or an
            array stand for their own address; the kernel may write to an array.

    Returns:
        What the call returned, and the attributes as they are afterwards.

    Raises:
        OSError: the kernel said no; its ``attr`` has the attributes afterwards.
    """
    dtype = ATTRS[command]
    attr = np.zeros(1, dtype)
    keep = []
    for name, value in fields.items():
        if dtype[name].kind == "S" or isinstance(value, int):
            attr[name] = value
            continue
        # What is empty has no address that the kernel would take.
        if not len(value):
            continue
        array = np.frombuffer(value, "u1") if isinstance(value, bytes) else value
        keep.append(array)
        attr[name] = array.ctypes.data
    return bpf_with(command, attr), attr[0]


def bpf_with(command: Cmd, attr: NDArray[Any]) -> int:
    """Make the system call with attributes that are laid out already.

    Args:
        command: what to do.
        attr: (1,) of the command's ``ATTRS``; the kernel may write to it. What its addresses
            point to is the caller's to keep.

    Raises:
        OSError: the kernel said no; its ``attr`` has the attributes afterwards.
    """
    number, call = _entry()
    done = call(
        ctypes.c_long(number),
        ctypes.c_long(int(command)),
        ctypes.c_void_p(attr.ctypes.data),
        ctypes.c_size_t(attr.dtype.itemsize),
    )
    if done < 0:
        error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        error.attr = attr[0]  # type: ignore[attr-defined]  # sizes that would have been needed
        raise error
    return int(done)


def refused(error: OSError, what: str, hint: str = "") -> KernelError:
    """The error for a call that failed, with a word on permissions where those were missing."""
    number = error.errno or 0
    if number == 1 and not hint:
        hint = (
            "CAP_BPF, or CAP_NET_ADMIN or CAP_PERFMON, is missing, or this kernel does not "
            "offer it to anyone"
        )
    return KernelError(number, f"{what} ({hint})" if hint else what)


def object_name(name: str) -> bytes:
    """A name as the kernel takes it: 15 characters, letters, digits, ``_`` and ``.``.

    Source: linux v6.1, kernel/bpf/syscall.c, bpf_obj_name_cpy().
    """
    kept = [char if char.isascii() and (char.isalnum() or char in "_.") else "_" for char in name]
    return "".join(kept)[:NAME_LEN].encode()


class Handle:
    """Something in the kernel that lives as long as its file descriptor.

    Attributes:
        fd: the descriptor; closed by `close`, at the end of a ``with`` block, or when nothing
            refers to the handle any more.
    """

    def __init__(self, fd: int) -> None:
        # 0 stands for "none" in many attributes.
        if fd < _FIRST_FD:
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
            os.close(fd)
            fd = moved
        self.fd = fd
        self._closer = weakref.finalize(self, os.close, fd)

    @property
    def is_closed(self) -> bool:
        """Whether the descriptor is closed."""
        return not self._closer.alive

    def close(self) -> None:
        """Close the descriptor; a second time is fine."""
        self._closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
