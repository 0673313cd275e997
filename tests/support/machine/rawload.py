"""Load raw instructions as a socket filter and run them, by bpf(2) through ctypes."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from support.machine.tools import bpf_call

BPF_PROG_LOAD = 5
BPF_PROG_TEST_RUN = 10
SOCKET_FILTER = 1


class RejectedError(Exception):
    """The kernel does not take the program; the message is its log."""


def kernel_result(code: bytes, packet: bytes) -> int:
    """The 32-bit return value of a socket filter for a packet.

    Raises:
        RejectedError: the verifier says no.
    """
    insns = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 16)
    attr = struct.pack(
        "=IIQQIIQII",
        SOCKET_FILTER,
        len(code) // 8,
        ctypes.addressof(insns),
        ctypes.addressof(license_text),
        1,
        len(log),
        ctypes.addressof(log),
        0,
        0,
    )
    try:
        fd, _ = bpf_call(BPF_PROG_LOAD, attr)
    except OSError as error:
        text = log.value.decode(errors="replace")
        raise RejectedError(f"{errno.errorcode[error.errno or 0]}: {text[-800:]}") from None
    try:
        data = ctypes.create_string_buffer(packet, len(packet))
        row = (fd, 0, len(packet), 0, ctypes.addressof(data), 0, 1, 0, 0, 0, 0, 0)
        _, after = bpf_call(BPF_PROG_TEST_RUN, struct.pack("=4I2Q4I2Q", *row))
    finally:
        os.close(fd)
    return int(struct.unpack_from("=4I", after)[1])
