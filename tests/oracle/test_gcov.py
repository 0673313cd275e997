"""gcov counts the same lines of the same sources, compiled for the host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bpfpatch import coverage, runs
from bpfpatch.elf import ElfObject
from support.machine.tools import need

FOLDER = Path(__file__).parent / "counted"
PROGRAMS = sorted(path.stem for path in FOLDER.glob("*.c"))
CLANG = "clang-19"
PACKETS = [
    *(bytes((7 * at + 13 * start) % 97 for at in range(64)) for start in range(12)),
    *(bytes([value]) * size for value in (0, 10, 25, 50, 90) for size in (3, 12, 40)),
    bytes([10, 20, 30, 40, 50, 60]),
]


def ran(*args: str | Path, cwd: Path, data: bytes = b"") -> bytes:
    """Run a tool that must succeed; its output."""
    command = list(map(str, args))
    done = subprocess.run(
        command, cwd=cwd, input=data, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def by_gcov(source: Path, folder: Path) -> dict[int, int]:
    """What gcov counts of a source's lines on the packets."""
    need("gcc", "gcov")
    ran("gcc", "-O0", "--coverage", "-w", source, "-o", "host", cwd=folder)
    fed = b"".join(bytes([len(packet)]) + packet for packet in PACKETS)
    ran(folder / "host", cwd=folder, data=fed)
    found = json.loads(ran("gcov", "--json-format", "--stdout", "host-" + source.stem, cwd=folder))
    (file,) = (one for one in found["files"] if one["file"] == str(source))
    return {line["line_number"]: line["count"] for line in file["lines"]}


def by_us(source: Path, folder: Path) -> dict[int, int | None]:
    """What we count of the object's lines on the same."""
    need(CLANG)
    options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-c"]
    ran(CLANG, *options, source, "-o", "bpf.o", cwd=folder)
    inputs = [runs.Input(packet=packet) for packet in PACKETS]
    found = coverage.run(ElfObject.read(folder / "bpf.o"), "program", inputs)
    assert not [one.error for one in found.outcomes if one.error]
    return found.coverage.files[str(source)].lines


@pytest.mark.parametrize("name", PROGRAMS)
def test_lines_have_the_counts_of_gcov(name: str, tmp_path: Path) -> None:
    """Every line that both know has the same count, though one is of optimized code.

    A function's first and last line, where gcov knows nothing of it, are left out.
    """
    source = FOLDER / f"{name}.c"
    ours, theirs = by_us(source, tmp_path), by_gcov(source, tmp_path)
    both = ours.keys() & theirs.keys()
    assert len(both) >= 5
    assert {line: ours[line] for line in both} == {line: theirs[line] for line in both}
