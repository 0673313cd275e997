"""A command that is killed leaves the old file whole or the new one whole, and no litter."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bpfpatch
from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import fixture_path

# Processes of the command line might load programs, for all that the guard can tell.
pytestmark = pytest.mark.kernel

PACKAGE = Path(bpfpatch.__file__).parent
OBJECT = fixture_path("xdp_balancer.clang-19.v3.el.g.o")
SECONDS = 30
N_MOMENTS = 6
"""For each command and signal; `python tests/kernel/test_interrupts.py 200` tries more."""

COMMANDS = {
    "apply": ["apply", "-q", "-p", "sprinkle", str(OBJECT), "-o"],
    "cover": ["cover", "-q", str(OBJECT), "-o"],
}


def interrupted(command: list[str], out: Path, number: signal.Signals, after: float) -> int:
    """Run a command, send it a signal, and give its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bpfpatch", *command, str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    time.sleep(after)
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    # Before main() runs, an interrupt is Python's own affair.
    seen = set(re.findall(re.escape(f"{PACKAGE}/") + r'([^"]*)"', errors.decode()))
    assert seen <= {"__init__.py", "__main__.py", "cli/__init__.py"}, errors.decode()
    return process.returncode


def check(command: list[str], folder: Path, number: signal.Signals, after: float) -> bool:
    """Check one moment; whether the new file was written."""
    out = folder / "out.o"
    out.write_bytes(b"old")
    status = interrupted(command, out, number, after)
    assert [path.name for path in folder.iterdir()] == ["out.o"]
    if out.read_bytes() == b"old":
        assert status != 0
        return False
    ElfObject.read(out)
    return True


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_old_file_or_the_new_one(name: str, number: signal.Signals, tmp_path: Path) -> None:
    """At any moment of a command's life."""
    lots = random.Random(f"{name} {number}")
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "bpfpatch", *COMMANDS[name], str(tmp_path / "out.o")], check=True
    )
    length = time.monotonic() - began
    for _ in range(N_MOMENTS):
        check(COMMANDS[name], tmp_path, number, lots.uniform(0, length))


def main(n_moments: int) -> None:
    """Try many moments of each command and signal."""
    import tempfile

    for name, command in COMMANDS.items():
        for number in (signal.SIGINT, signal.SIGTERM):
            with tempfile.TemporaryDirectory() as folder:
                n_new = sum(
                    check(command, Path(folder), number, random.uniform(0, 0.5))
                    for _ in range(n_moments)
                )
            print(f"{name} {number.name}: {n_moments} moments, the new file {n_new} times")


if __name__ == "__main__":
    main(int(sys.argv[1]))
