"""What a path in the bpf file system stands for.

Source: linux v6.18, include/uapi/linux/bpf.h, BPF_OBJ_GET and its part of union bpf_attr;
kernel/bpf/syscall.c, bpf_map_show_fdinfo() and bpf_prog_show_fdinfo().
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import OptionError
from bpfpatch.kernel.syscall import Handle, _entry, refused

_OBJ_GET: Final = 7
_ATTR: Final = np.dtype([("pathname", "u8"), ("bpf_fd", "u4"), ("file_flags", "u4")])
_KINDS: Final = {"map_id": "map", "prog_id": "program"}


def pinned(path: str) -> tuple[str, int]:
    """What is pinned at a path: "map" or "program", and its id.

    Raises:
        OptionError: something else is pinned there.
        KernelError: nothing is, or the kernel refused.
    """
    text = ctypes.create_string_buffer(os.fsencode(path))
    attr: NDArray[Any] = np.zeros(1, _ATTR)
    attr["pathname"] = ctypes.addressof(text)
    number, call = _entry()
    fd = call(
        ctypes.c_long(number),
        ctypes.c_long(_OBJ_GET),
        ctypes.c_void_p(attr.ctypes.data),
        ctypes.c_size_t(_ATTR.itemsize),
    )
    if fd < 0:
        error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        raise refused(error, f"opening what is pinned at {path}")
    with Handle(int(fd)) as handle:
        lines = Path(f"/proc/self/fdinfo/{handle.fd}").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    for key, kind in _KINDS.items():
        if key in told:
            return kind, int(told[key])
    raise OptionError(f"what is pinned at {path} is neither a map nor a program")
