"""A loader for tests to intercept: raw bpf(2), and JSON of what the kernel made of it.

Run as a script, so that it is a process of its own: ``python -S loader.py MODE``.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

HERE = str(Path(__file__).resolve())
RETURN_2 = struct.pack("<BBhi", 0xB7, 0, 0, 2) + struct.pack("<BBhi", 0x95, 0, 0, 0)
NO_RESULT = struct.pack("<BBhi", 0x95, 0, 0, 0)
SOCKET_FILTER = 1
PROG_LOAD, OBJ_GET_INFO = 5, 15
ATTR_SIZE = 168
LOG_TRUE_SIZE_AT = 140
BTF_FD_AT = 72
BTF_LOAD = 18

_libc = ctypes.CDLL(None, use_errno=True)
_NUMBER = {"x86_64": 321, "aarch64": 280}[os.uname().machine]


def bpf(command: int, attr: ctypes.Array[ctypes.c_char], size: int) -> tuple[int, int]:
    """(result, errno) of the system call."""
    done = _libc.syscall(_NUMBER, command, ctypes.byref(attr), size)
    return done, ctypes.get_errno() if done < 0 else 0


def load(
    code: bytes,
    *,
    insns_at: int | None = None,
    log_at: int | None = None,
    log_size: int = 0,
    log_level: int = 0,
    size: int = ATTR_SIZE,
    has_types: bool = False,
) -> dict[str, object]:
    """Load a socket filter and say what came back."""
    room = ctypes.create_string_buffer(code, len(code))
    log = ctypes.create_string_buffer(b"\xee" * max(log_size, 1), max(log_size, 1))
    insns_at = ctypes.addressof(room) if insns_at is None else insns_at
    log_at = (ctypes.addressof(log) if log_size else 0) if log_at is None else log_at
    licence = ctypes.create_string_buffer(b"GPL")
    packed = struct.pack(
        "<IIQQIIQII16s",
        SOCKET_FILTER,
        len(code) // 8,
        insns_at,
        ctypes.addressof(licence),
        log_level,
        log_size,
        log_at,
        0,
        0,
        b"two",
    )
    attr = ctypes.create_string_buffer(packed.ljust(ATTR_SIZE, b"\0"), ATTR_SIZE)
    if has_types:
        struct.pack_into("<I", attr, BTF_FD_AT, types())
    fd, number = bpf(PROG_LOAD, attr, size)
    told: dict[str, object] = {
        "errno": number,
        "log": log.raw.split(b"\0")[0].decode("latin-1") if log_size else "",
        "untouched": len(log.raw) - len(log.raw.rstrip(b"\xee")) if log_size else 0,
        "true_size": struct.unpack_from("<I", attr.raw, LOG_TRUE_SIZE_AT)[0],
    }
    if fd >= 0:
        told |= {"fd": fd, "slots": slots(fd), "cloexec": not os.get_inheritable(fd)}
        os.close(fd)
    return told


def types() -> int:
    """A descriptor of BTF with one integer in it."""
    strings = b"\0int\0"
    record = struct.pack("<4I", 1, 1 << 24, 4, 32 | 1 << 24)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(record), len(record), len(strings))
    data = ctypes.create_string_buffer(header + record + strings)
    attr = ctypes.create_string_buffer(
        struct.pack("<QQIII", ctypes.addressof(data), 0, len(data.raw) - 1, 0, 0), 40
    )
    fd, number = bpf(BTF_LOAD, attr, 28)
    assert not number, os.strerror(number)
    return fd


def slots(fd: int) -> int:
    """Length of a loaded program."""
    info = ctypes.create_string_buffer(256)
    attr = ctypes.create_string_buffer(struct.pack("<IIQ", fd, 256, ctypes.addressof(info)), 128)
    bpf(OBJ_GET_INFO, attr, 128)
    return int(struct.unpack_from("<I", info.raw, 20)[0]) // 8


def gone() -> int:
    """An address at which there is no memory any more."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    view = ctypes.c_char.from_buffer(page)
    at = ctypes.addressof(view)
    del view
    page.close()
    return at


def at_once(n_threads: int, n_loads: int) -> list[dict[str, object]]:
    """Loads from several threads."""
    out: list[dict[str, object]] = []

    def work() -> None:
        out.extend(load(RETURN_2) for _ in range(n_loads))

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return out


def forever() -> None:
    """Load until killed."""
    print("started", flush=True)
    while True:
        load(RETURN_2)


MODES: dict[str, Callable[[], object]] = {
    "once": lambda: load(RETURN_2),
    "named": lambda: load(RETURN_2, has_types=True),
    "log": lambda: load(RETURN_2, log_level=1, log_size=4096),
    "stats": lambda: load(RETURN_2, log_level=4, log_size=4096),
    "small-log": lambda: load(RETURN_2, log_level=1, log_size=40),
    "no-log": lambda: load(RETURN_2, log_level=1),
    "old-attr": lambda: load(RETURN_2, log_level=1, log_size=4096, size=120),
    "refused": lambda: load(NO_RESULT, log_level=1, log_size=4096),
    "no-insns": lambda: load(RETURN_2, insns_at=gone()),
    "no-log-memory": lambda: load(RETURN_2, log_level=1, log_size=4096, log_at=gone()),
    "long": lambda: load(RETURN_2[:8] * 999_999 + RETURN_2[8:]),
    "threads": lambda: at_once(8, 20),
    "forever": forever,
}

if __name__ == "__main__":
    print(json.dumps(MODES[sys.argv[1]]()))
