"""BTF in the kernel."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.btf import Btf

from .errors import KernelError
from .syscall import Cmd, Handle, bpf, refused

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_LOG_BYTES: Final = 1 << 16
_INFO: Final = np.dtype(
    [
        ("btf", "u8"),
        ("btf_size", "u4"),
        ("id", "u4"),
        ("name", "u8"),
        ("name_len", "u4"),
        ("kernel_btf", "u4"),
    ],
    align=True,
)
_CACHED: Final = 8


class LoadedBtf(Handle):
    """Types in the kernel, for programs and maps to refer to.

    Attributes:
        btf: what was loaded.
    """

    def __init__(self, fd: int, btf: Btf) -> None:
        super().__init__(fd)
        self.btf = btf


def load_btf(btf: Btf) -> LoadedBtf:
    """Load a .BTF section; see `prepare_btf` for what an object's needs first.

    Raises:
        KernelError: the kernel refuses the types; the message ends in what its log says.
    """
    data = btf.to_bytes()
    try:
        fd, _ = bpf(Cmd.BTF_LOAD, btf=data, btf_size=len(data))
    except OSError as error:
        why = _log(data)
        raise refused(error, f"loading BTF: {why}" if why else "loading BTF") from error
    return LoadedBtf(fd, btf)


def read_btf(fd: int) -> Btf:
    """Types that are in the kernel already.

    Those that were read last are kept: all programs of an object have the same.

    Raises:
        KernelError: the kernel does not tell.
        FormatError: they are none.

    Source: linux v6.18, include/uapi/linux/bpf.h, struct bpf_btf_info.
    """
    row = _info(fd, np.zeros(0, "u1"))
    btf_id, size = int(row["id"]), int(row["btf_size"])
    with _lock:
        found = _known.pop(btf_id, None)
        if found is None:
            data = np.zeros(size, "u1")
            _info(fd, data)
            # Its number stays its own as long as there is a descriptor of it.
            found = LoadedBtf(os.dup(fd), Btf.parse(data.tobytes()))
        _known[btf_id] = found
        while len(_known) > _CACHED:
            _known.pop(next(iter(_known))).close()
    return found.btf


def btf_id_of(fd: int) -> int:
    """The number of types in the kernel.

    Raises:
        KernelError: the kernel does not tell.
    """
    return int(_info(fd, np.zeros(0, "u1"))["id"])


def read_btf_by_id(btf_id: int) -> Btf:
    """The types with a number; see `read_btf`.

    Raises:
        KernelError: there are none, or the kernel refused.
    """
    with _lock:
        if btf_id in _known:
            return _known[btf_id].btf
    try:
        fd, _ = bpf(Cmd.BTF_GET_FD_BY_ID, id=btf_id)
    except OSError as error:
        raise refused(error, f"opening the types with id {btf_id}") from error
    with Handle(fd) as handle:
        return read_btf(handle.fd)


_lock: Final = threading.Lock()
_known: Final[dict[int, LoadedBtf]] = {}


def forget_btf() -> None:
    """Close what `read_btf` has kept."""
    with _lock:
        while _known:
            _known.popitem()[1].close()


def _info(fd: int, room: NDArray[np.uint8]) -> Any:
    info = np.zeros(1, _INFO)
    if room.size:
        info["btf"], info["btf_size"] = room.ctypes.data, room.size
    try:
        bpf(Cmd.OBJ_GET_INFO_BY_FD, bpf_fd=fd, info_len=info.itemsize, info=info)
    except OSError as error:
        raise refused(error, "reading types from the kernel") from error
    return info[0]


def _log(data: bytes) -> str:
    """Why the kernel refuses types: the last line of its log."""
    log = np.zeros(_LOG_BYTES, "u1")
    try:
        fd, _ = bpf(
            Cmd.BTF_LOAD,
            btf=data,
            btf_size=len(data),
            btf_log_buf=log,
            btf_log_size=log.size,
            btf_log_level=1,
        )
    except OSError:
        lines = log.tobytes().split(b"\0")[0].decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""
    LoadedBtf(fd, Btf.parse(data)).close()
    return ""


@cache
def vmlinux_btf() -> Btf:
    """The running kernel's own types.

    Raises:
        KernelError: the kernel has none (CONFIG_DEBUG_INFO_BTF).
    """
    try:
        return Btf.parse(VMLINUX.read_bytes())
    except OSError as error:
        raise KernelError(error.errno or 0, f"reading the kernel's types from {VMLINUX}") from error
