"""All elements of a kernel's array at once: one call where two for each element would be needed.

Source: linux v6.18, include/uapi/linux/bpf.h, BPF_MAP_LOOKUP_BATCH and the ``batch`` part
of union bpf_attr; kernel/bpf/syscall.c, generic_map_lookup_batch().
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.kernel import Map
from bpfpatch.kernel.syscall import _entry

_LOOKUP_BATCH: Final = 24
_AT_ONCE: Final = 1 << 22
"""Bytes of values that one call asks for."""
_ATTR: Final = np.dtype(
    [
        ("in_batch", "u8"),
        ("out_batch", "u8"),
        ("keys", "u8"),
        ("values", "u8"),
        ("count", "u4"),
        ("map_fd", "u4"),
        ("elem_flags", "u8"),
        ("flags", "u8"),
    ]
)


def read_array(array: Map) -> dict[bytes, bytes]:
    """The elements of an array or per-CPU array that are not zeros, by key.

    Raises:
        OSError: the kernel refused, as those before 5.6 do.
    """
    out: dict[bytes, bytes] = {}
    n_rows = min(array.max_entries, max(_AT_ONCE // array.n_value_bytes, 1))
    keys = np.zeros((n_rows, array.key_size), "u1")
    values = np.zeros((n_rows, array.n_value_bytes), "u1")
    batch = np.zeros(array.key_size, "u1")
    is_first = True
    while True:
        n_read, is_last = _lookup(array.fd, keys, values, batch, is_first=is_first)
        is_first = False
        for row in np.flatnonzero(values[:n_read].any(axis=1)).tolist():
            out[keys[row].tobytes()] = values[row].tobytes()
        if is_last or not n_read:
            return out


def _lookup(
    fd: int,
    keys: NDArray[np.uint8],
    values: NDArray[np.uint8],
    batch: NDArray[np.uint8],
    *,
    is_first: bool,
) -> tuple[int, bool]:
    """How many rows were read, and whether these were the last."""
    attr: NDArray[Any] = np.zeros(1, _ATTR)
    attr["in_batch"] = 0 if is_first else batch.ctypes.data
    attr["out_batch"] = batch.ctypes.data
    attr["keys"], attr["values"] = keys.ctypes.data, values.ctypes.data
    attr["count"], attr["map_fd"] = len(keys), fd
    number, call = _entry()
    done = call(
        ctypes.c_long(number),
        ctypes.c_long(_LOOKUP_BATCH),
        ctypes.c_void_p(attr.ctypes.data),
        ctypes.c_size_t(_ATTR.itemsize),
    )
    number = ctypes.get_errno()
    if done < 0 and number != errno.ENOENT:
        raise OSError(number, "reading many elements of a map")
    return int(attr["count"][0]), done < 0
