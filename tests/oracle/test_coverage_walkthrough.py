"""docs/coverage-walkthrough.md can be done as it stands."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.inputs.bpfobjects import FIXTURES, XDP_TOOLS
from support.machine.tools import need, need_bpf

pytestmark = pytest.mark.kernel

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "coverage-walkthrough.md").read_text()
PIN = Path("/sys/fs/bpf/bpfpatch_xsk")


def steps() -> list[tuple[str, str]]:
    """The commands in the document, and what it says that each prints ("" for anything)."""
    out = []
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = step.partition("\n")
            out.append((command, printed))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands run: with a capture, and nothing left behind."""
    need_bpf()
    if not (XDP_TOOLS / "xdpfilt_alw_all.o").exists():
        pytest.skip("not installed: libxdp1")
    path = tmp_path_factory.mktemp("walk")
    shutil.copy(FIXTURES / "packets.pcap", path / "traffic.pcap")
    # The document's pin is one place: processes that run tests side by side take turns.
    with (Path(tempfile.gettempdir()) / "bpfpatch-walkthrough.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
        PIN.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def printed(folder: Path) -> list[str]:
    """What each command printed; all of them ended well."""
    need("genhtml")
    out = []
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, _ in steps():
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        out.append(done.stdout)
    return out


def test_four_commands() -> None:
    """The report takes four commands, as the document says."""
    (part,) = re.findall(r"^## Four commands\n(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^\$ ", part, re.MULTILINE)) == 4


@pytest.mark.parametrize("number", range(len(steps())))
def test_command_prints_what_the_document_says(printed: list[str], number: int) -> None:
    """Each command works; where the document shows an output, it is that."""
    _, expected = steps()[number]
    if expected:
        assert printed[number] == expected


def test_results_are_there(printed: list[str], folder: Path) -> None:
    """The files that the document promises are there, and none is empty."""
    names = ["filter.html", "filter.info", "lcov/index.html", "filter.xml", "filter.json"]
    assert len(printed) == len(steps())
    assert all((folder / name).stat().st_size > 1000 for name in names)


def test_picture_is_there() -> None:
    """The picture that the document shows exists."""
    (name,) = re.findall(r"!\[[^]]*\]\((.*?)\)", TEXT)
    assert (DOCS / name).stat().st_size > 10_000
