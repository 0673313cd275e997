"""All elements of a kernel's array at once: one call where two for each element would be needed.

Source: linux v6.18, kernel/bpf/syscall.c, generic_map_lookup_batch().
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .map import Map
from .syscall import Cmd, Value, bpf

_AT_ONCE: Final = 1 << 22
"""Bytes of values that one call asks for."""


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
    start: dict[str, Value] = {} if is_first else {"in_batch": batch}
    try:
        _, attr = bpf(
            Cmd.MAP_LOOKUP_BATCH,
            **start,
            out_batch=batch,
            keys=keys,
            values=values,
            count=len(keys),
            map_fd=fd,
        )
    except OSError as error:
        # There are no more, and those that there were have been read.
        if error.errno != errno.ENOENT:
            raise
        return int(error.attr["count"]), True  # type: ignore[attr-defined]  # `bpf` puts it there
    return int(attr["count"]), False
