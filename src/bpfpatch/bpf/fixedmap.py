"""Addresses of memory that is mapped, also of choice, which Python's own mmap does not tell.

Source: mmap(2); linux v6.18, kernel/bpf/arena.c, arena_get_unmapped_area().
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

_NO_REPLACE: Final = 0x100000
"""MAP_FIXED_NOREPLACE: fail where something else is mapped there already."""
_FAILED: Final = ctypes.c_void_p(-1).value


def write_at(fd: int, address: int, size: int, content: bytes) -> None:
    """Map a map at an address, put content at its start, and take the mapping away again.

    Args:
        fd: the map's descriptor.
        address: where; of an arena what its map_extra says.
        size: bytes to map.
        content: no longer than that.

    Raises:
        OSError: the kernel refuses, or something is mapped there.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    got = libc.mmap(address, size, protection, mmap.MAP_SHARED | _NO_REPLACE, fd, 0)
    if got == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        ctypes.memmove(got, content, len(content))
    finally:
        libc.munmap(got, size)


def address_of(pages: mmap.mmap) -> int:
    """Where a mapping starts."""
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))
