"""Load raw instructions as a socket filter and run them, by bpf(2) alone."""

from __future__ import annotations

import ctypes
import os
import struct

from support.machine import tools

BPF_PROG_LOAD = 5
SOCKET_FILTER = 1
PACKET = bytes(64)
ERROR_BYTES = 256


def run_raw(code: bytes) -> int:
    """R0's low half after one run of a program on a packet of zeros.

    Raises:
        OSError: the kernel refused the program.
    """
    insns = ctypes.create_string_buffer(code, len(code))
    license_ = ctypes.create_string_buffer(b"GPL")
    load = struct.pack(
        "=IIQQIIQII",
        SOCKET_FILTER,
        len(code) // 8,
        ctypes.addressof(insns),
        ctypes.addressof(license_),
        0,
        0,
        0,
        0,
        0,
    )
    fd, _ = tools.bpf_call(BPF_PROG_LOAD, load)
    try:
        data = ctypes.create_string_buffer(PACKET, len(PACKET))
        row = (fd, 0, len(PACKET), 0, ctypes.addressof(data), 0, 1, 0, 0, 0, 0, 0)
        _, attr = tools.bpf_call(tools.BPF_PROG_TEST_RUN, struct.pack(tools.TEST_RUN_ATTR, *row))
        return int(struct.unpack_from("=I", attr, 4)[0])
    finally:
        os.close(fd)
