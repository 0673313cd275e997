"""The stock loader: bpftool, as a subprocess."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECONDS: Final = 60
"""How long one call may take."""

ROOM: Final = 4096
"""Bytes for a packet that comes back."""


class LoaderError(Exception):
    """bpftool is not there, or said no."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What running a program on a packet gave: its return value, and the packet."""

    verdict: int
    packet: bytes


@contextmanager
def bpffs() -> Iterator[Path]:
    """A folder for pins, in a BPF file system that is mounted for as long if there is none.

    All that was pinned in it is gone afterwards.

    Raises:
        LoaderError: there is no bpftool, or no place to pin.
    """
    if shutil.which("bpftool") is None:
        raise LoaderError("bpftool is not installed")
    with _mounted() as root:
        folder = root / f"bpfpatch_{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            raise LoaderError(f"{folder}: {error.strerror}") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def load(obj: Path, folder: Path) -> dict[str, Path]:
    """Load all programs of an object, and pin each.

    Args:
        obj: the object.
        folder: where to pin; must not exist yet.

    Returns:
        Where each program is pinned, by name.

    Raises:
        LoaderError: it does not load.
    """
    _run("prog", "loadall", str(obj), str(folder))
    return {pin.name: pin for pin in sorted(folder.iterdir())}


def run(pin: Path, packet: bytes) -> Ran:
    """Run a pinned program on a packet.

    Raises:
        LoaderError: the kernel does not run it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "in", Path(scratch) / "out"
        data.write_bytes(packet)
        answer = _run(
            *("-j", "prog", "run", "pinned", str(pin), "data_in", str(data)),
            *("data_out", str(out), "data_size_out", str(len(packet) + ROOM)),
        )
        return Ran(int(json.loads(answer)["retval"]), out.read_bytes())


@contextmanager
def _mounted() -> Iterator[Path]:
    """Where a BPF file system is mounted."""
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, *_ = line.split(" ")
            if kind == "bpf" and os.access(place, os.W_OK):
                yield Path(place)
                return
    with tempfile.TemporaryDirectory() as folder:
        _call("mount", "-t", "bpf", "bpf", folder)
        try:
            yield Path(folder)
        finally:
            _call("umount", folder)


def _run(*args: str) -> str:
    return _call("bpftool", *args)


def _call(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoaderError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise LoaderError(_reason(command[0], done.stdout + done.stderr))
    return done.stdout


def _reason(command: str, text: str) -> str:
    """What a tool said, in one line."""
    if "not permitted" in text:
        return f"{command}: not permitted here, root or CAP_BPF may be missing"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    return f"{command}: {(errors or lines or ['failed'])[-1]}"
