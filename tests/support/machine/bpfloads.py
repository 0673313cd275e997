"""Load rewritten objects beside their originals, and ask what the kernel made of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bpfpatch import isa
from bpfpatch.bpf.proginfo import prog_info, prog_xlated
from support.inputs import packets
from support.machine.tools import BPFFS, BpftoolError, Loaded, bpf_call, bpf_run, fd_of, loaded

Answer = tuple[int, bytes] | str
SourceLine = tuple[str, int, str]

BTF_GET_FD_BY_ID = 19
OBJ_GET_INFO_BY_FD = 15
# Address and size of the types, and what is not asked for: id, name, whether they are the kernel's.
BTF_INFO = "=QIIQII"
KERNEL_HALF = 0xFFFF_0000
"""The upper half of the kernel's addresses is at least this."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the kernel made of a program, without what no two loads share: ids and addresses.

    Attributes:
        code: its instructions.
        functions: slots at which functions start, and their types' numbers.
        lines: slots at which source lines start, and the lines.
    """

    code: list[tuple[int, ...]]
    functions: list[tuple[int, int]]
    lines: list[tuple[int, SourceLine]]


@contextlib.contextmanager
def loaded_bytes(data: bytes, folder: Path) -> Iterator[Loaded]:
    """Load an object from memory for the length of a ``with`` block.

    Objects whose maps libbpf pins by name take no other pins for them; what
    it pinned is removed afterwards.

    Raises:
        BpftoolError: it does not load.
    """
    path = folder / "object.o"
    path.write_bytes(data)
    before = set(BPFFS.iterdir())
    try:
        with loaded(path) as what:
            yield what
            return
    except BpftoolError as error:
        if "different from" not in str(error):
            raise
    root = BPFFS / f"{folder.name}_by_name"
    try:
        done = subprocess.run(
            ["bpftool", "prog", "loadall", str(path), str(root)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BpftoolError(done.stderr)
        yield Loaded(root, {pin.name: pin for pin in sorted(root.iterdir())}, {})
    finally:
        if root.exists():
            for pin in sorted(root.iterdir()):
                pin.unlink()
            root.rmdir()
        for pin in set(BPFFS.iterdir()) - before:
            if not pin.is_dir():
                pin.unlink(missing_ok=True)


def listing(pin: Path) -> Listing:
    """What the kernel made of a program.

    It is read by bpf(2) itself: for each listing bpftool reads all of the kernel's symbols.
    """
    fd = fd_of(pin)
    try:
        info, code = prog_info(fd), prog_xlated(fd).copy()
    finally:
        os.close(fd)
    first = np.flatnonzero(isa.is_ld_imm64(code))
    is_map, is_address = isa.src(code[first]) != 0, code["imm"][first + 1].view("u4") >= KERNEL_HALF
    code["imm"][first[is_map | is_address]] = 0
    code["imm"][first[is_address] + 1] = 0
    texts = _strings(info.btf_id) if info.btf_id else b""
    lines = [
        (slot, (_text(texts, file), column, _text(texts, line)))
        for slot, file, line, column in info.line_info.tolist()
    ]
    return Listing(code.tolist(), info.func_info.tolist(), lines)


def source_lines(of: Listing) -> list[SourceLine]:
    """The source lines that a listing names, in order: file, line and column, text."""
    return [line for _, line in of.lines]


def _strings(btf_id: int) -> bytes:
    """The strings of types that the kernel holds."""
    fd, _ = bpf_call(BTF_GET_FD_BY_ID, struct.pack("=I", btf_id))
    try:
        size = _btf_info(fd, 0, 0)
        types = ctypes.create_string_buffer(size)
        _btf_info(fd, ctypes.addressof(types), size)
    finally:
        os.close(fd)
    (start,) = struct.unpack_from("=I", types.raw, 4)
    str_off, str_len = struct.unpack_from("=II", types.raw, 16)
    return types.raw[start + str_off :][:str_len]


def _btf_info(fd: int, address: int, room: int) -> int:
    """Have types written to an address; returns their size."""
    info = ctypes.create_string_buffer(struct.pack(BTF_INFO, address, room, 0, 0, 0, 0))
    size = struct.calcsize(BTF_INFO)
    bpf_call(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, ctypes.addressof(info)))
    return int(struct.unpack_from(BTF_INFO, info.raw)[1])


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()


def answers(pin: Path) -> dict[str, Answer]:
    """What a program says to each sample packet; where the kernel refuses, its error."""
    out: dict[str, Answer] = {}
    for name, data in packets.SAMPLES.items():
        try:
            ran = bpf_run(pin, data)
        except OSError as error:
            out[name] = error.strerror or str(error)
        else:
            out[name] = (ran.retval, ran.data)
    return out
