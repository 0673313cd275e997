"""BTF in the kernel."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from bpfpatch.btf import Btf

from .errors import KernelError
from .syscall import Cmd, Handle, bpf, refused

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_LOG_BYTES: Final = 1 << 16


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
