"""What tests need from the machine: skips with a reason, and bpftool in a few verbs."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import itertools
import json
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BPFFS = Path("/sys/fs/bpf")
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
BPF_MAP_CREATE = 0
BPF_OBJ_GET = 7
BPF_PROG_TEST_RUN = 10
MAP_ARRAY = 2
ATTR_BYTES = 128
# prog_fd, retval, packet sizes and addresses, repeat, duration, context sizes and addresses
TEST_RUN_ATTR = "=4I2Q4I2Q"
ROOM = 4096

_count = itertools.count()
_pinned: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run gave.

    Attributes:
        retval: the return value, unsigned.
        data: the packet afterwards.
        ctx: the context afterwards.
    """

    retval: int
    data: bytes
    ctx: bytes


class BpftoolError(Exception):
    """bpftool said no; the message is its log."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object whose programs are loaded and pinned.

    Attributes:
        root: the folder of the programs' pins, gone after ``unload``.
        pins: where each program is pinned, by function name.
        maps: where each map is pinned, by its name with ``.`` as ``_``. Without a pin, a
            program array would lose its entries as soon as bpftool ends.
    """

    root: Path
    pins: Mapping[str, Path]
    maps: Mapping[str, Path]

    def pin(self, name: str | None = None) -> Path:
        """A program's pin; without a name the only one."""
        if name is not None:
            return self.pins[name]
        (only,) = self.pins.values()
        return only


def has_tool(name: str) -> bool:
    """Whether a command is on the path."""
    return shutil.which(name) is not None


def need(*names: str) -> None:
    """Skip the test unless all of these commands are on the path."""
    missing = [name for name in names if not has_tool(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@functools.cache
def bpf_allowed() -> bool:
    """Whether bpf(2) makes a map here: tried once with the smallest one."""
    try:
        fd, _ = bpf_call(BPF_MAP_CREATE, struct.pack("=5I", MAP_ARRAY, 4, 4, 1, 0))
    except OSError:
        return False
    os.close(fd)
    return True


def need_bpf() -> None:
    """Skip the test unless bpf(2) works and bpftool is there to drive it."""
    if not bpf_allowed():
        pytest.skip("bpf(2) is not allowed here")
    need("bpftool")


def load_with_bpftool(path: Path, prog_type: str | None = None) -> Loaded:
    """Load and pin all programs of an object; pair it with ``unload``, or use ``loaded``.

    Args:
        path: the object.
        prog_type: bpftool's word for the type, where the section's name does not say it.

    Raises:
        BpftoolError: it does not load; the message ends in the verifier's log.
    """
    root = BPFFS / f"bpfpatch_test_{os.getpid()}_{next(_count)}"
    typed = [] if prog_type is None else ["type", prog_type]
    _pinned.add(root)
    before = set(BPFFS.iterdir())
    try:
        _bpftool("prog", "loadall", str(path), str(root), *typed, "pinmaps", str(_maps_root(root)))
        return Loaded(root, _pins_in(root), _pins_in(_maps_root(root)))
    except BaseException:
        _remove(root)
        # Maps that ask for a pin of their own have got it before the load failed.
        for pin in set(BPFFS.iterdir()) - before:
            if pin.is_file():
                pin.unlink(missing_ok=True)
        raise


def unload(what: Loaded) -> None:
    """Remove an object's pins, and with them its programs and maps."""
    _remove(what.root)


@contextlib.contextmanager
def loaded(path: Path, prog_type: str | None = None) -> Iterator[Loaded]:
    """Load an object for the length of a ``with`` block."""
    what = load_with_bpftool(path, prog_type)
    try:
        yield what
    finally:
        unload(what)


def prog_run(pin: Path, data: bytes) -> tuple[int, bytes]:
    """Run a pinned program once on a packet.

    Returns:
        The return value, and the packet as it is afterwards.
    """
    ran = bpf_run(pin, data)
    return ran.retval, ran.data


def bpf_run(pin: Path, data: bytes = b"", ctx: bytes = b"", repeat: int = 1) -> Ran:
    """Run a pinned program on a packet, a context or both, by bpf(2) itself.

    Types that take a context only (syscall, raw_tracepoint) refuse the room for an answer
    that bpftool always offers, and any repeat (Linux 6.18, net/bpf/test_run.c). Such a
    program's context is changed in place.

    Args:
        pin: where it is pinned.
        data: the packet; b"" for types that take a context only.
        ctx: the context (zeros will do, as long as the kernel's struct or less); b"" for none.
        repeat: how often to run it on the same packet.

    Raises:
        OSError: the kernel refused.
    """
    data_in, data_out = _buffer(data), _buffer(bytes(len(data) + ROOM))
    ctx_in, ctx_out = _buffer(ctx), _buffer(bytes(len(ctx)))
    fd = fd_of(pin)
    try:
        if data:
            row = (fd, 0, len(data), len(data) + ROOM, *_address(data_in, data_out), repeat, 0)
            row += (len(ctx), len(ctx), *(_address(ctx_in, ctx_out) if ctx else (0, 0)))
        else:
            row = (fd, 0, 0, 0, 0, 0, 0, 0, len(ctx), 0, *_address(ctx_in, None))
        _, attr = bpf_call(BPF_PROG_TEST_RUN, struct.pack(TEST_RUN_ATTR, *row))
    finally:
        os.close(fd)
    after = struct.unpack_from(TEST_RUN_ATTR, attr)
    return Ran(after[1], data_out.raw[: after[3]], (ctx_out if data else ctx_in).raw[: len(ctx)])


def xlated(pin: Path) -> bytes:
    """A pinned program as the kernel rewrote it, 8 bytes a slot."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "xlated"
        _bpftool("prog", "dump", "xlated", "pinned", str(pin), "file", str(out))
        return out.read_bytes()


def xlated_listing(pin: Path) -> list[dict[str, Any]]:
    """A pinned program as the kernel rewrote it, bpftool's listing with opcodes."""
    rows: list[dict[str, Any]] = _bpftool("prog", "dump", "xlated", "pinned", str(pin), "opcodes")
    return rows


def maps_of(pin: Path) -> dict[str, list[dict[str, Any]]]:
    """The maps that a pinned program uses and their entries, by map name.

    Two maps of the same name are told apart by their ids; a map that cannot be listed
    (a ring buffer, a queue) is left out.
    """
    out: dict[str, list[dict[str, Any]]] = {}
    for map_id in _bpftool("prog", "show", "pinned", str(pin)).get("map_ids", []):
        name = _bpftool("map", "show", "id", str(map_id)).get("name", "")
        with contextlib.suppress(BpftoolError):
            rows = _bpftool("map", "dump", "id", str(map_id))
            out[f"{name}#{map_id}" if name in out else name] = rows
    return out


def _buffer(data: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(data, max(len(data), 1))


def _address(*buffers: ctypes.Array[ctypes.c_char] | None) -> tuple[int, ...]:
    return tuple(0 if buffer is None else ctypes.addressof(buffer) for buffer in buffers)


def fd_of(pin: Path) -> int:
    """A descriptor of what is pinned there, for the caller to close."""
    name = _buffer(os.fsencode(pin) + b"\0")
    return bpf_call(BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))[0]


def bpf_call(command: int, attr: bytes) -> tuple[int, bytes]:
    """Call bpf(2): what it returns, and its attributes as they are afterwards.

    Raises:
        OSError: the kernel refused.
    """
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"no bpf(2) number for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attr, ATTR_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(number, command, ctypes.byref(buffer), ATTR_BYTES)
    if done < 0:
        raise OSError(ctypes.get_errno(), f"bpf command {command}")
    return done, buffer.raw


def _bpftool(*args: str) -> Any:
    """Run bpftool and return its answer from JSON, None where it has none."""
    done = subprocess.run(
        ["bpftool", "-j", *args], capture_output=True, text=True, check=False, timeout=120
    )
    try:
        answer = json.loads(done.stdout) if done.stdout.strip() else None
    except json.JSONDecodeError:
        answer = None
    if done.returncode or (isinstance(answer, dict) and "error" in answer):
        raise BpftoolError(f"bpftool {' '.join(args)}: {done.stdout.strip()}\n{done.stderr}")
    return answer


def _maps_root(root: Path) -> Path:
    return root.with_name(f"{root.name}_maps")


def _pins_in(root: Path) -> dict[str, Path]:
    return {pin.name: pin for pin in sorted(root.iterdir())} if root.exists() else {}


def _remove(root: Path) -> None:
    _pinned.discard(root)
    for folder in (root, _maps_root(root)):
        for pin in _pins_in(folder).values():
            pin.unlink()
        if folder.exists():
            folder.rmdir()


@atexit.register
def _remove_all() -> None:
    for root in list(_pinned):
        _remove(root)
