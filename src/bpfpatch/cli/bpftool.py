"""A second witness for the demo: libbpf's own loader, as bpftool."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SECONDS: Final = 60
"""How long one call may take."""
ROOM: Final = 4096
"""Bytes for a packet that comes back."""


class LoaderError(Exception):
    """bpftool did not load or run it; the message is its reason, in one line."""


def absent() -> str | None:
    """Why bpftool cannot load anything here, or None."""
    return None if shutil.which("bpftool") else "not installed"


def run_all(obj: Path, packets: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """Load an object of one program, and run it on packets.

    Returns:
        For each packet the return value and the packet afterwards.

    Raises:
        LoaderError: it does not load or run.
    """
    with tempfile.TemporaryDirectory() as root:
        # A BPF file system of our own: the pins go with it, and nothing else sees them.
        _call("mount", "-t", "bpf", "bpf", root)
        try:
            _call("bpftool", "prog", "loadall", str(obj), f"{root}/demo")
            (pin,) = Path(root, "demo").iterdir()
            return [_run(pin, packet) for packet in packets]
        finally:
            _call("umount", root)


def _run(pin: Path, packet: bytes) -> tuple[int, bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "in", Path(scratch) / "out"
        data.write_bytes(packet)
        answer = _call(
            *("bpftool", "-j", "prog", "run", "pinned", str(pin), "data_in", str(data)),
            *("data_out", str(out), "data_size_out", str(len(packet) + ROOM)),
        )
        return int(json.loads(answer)["retval"]), out.read_bytes()


def _call(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LoaderError(str(error)) from error
    if not done.returncode:
        return done.stdout
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if "rror" in line]
    raise LoaderError((errors or lines or [f"{command[0]} failed"])[-1])
