"""docs/intercept.md shows commands that do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.machine.loader import HERE
from support.machine.tools import need, need_bpf

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "intercept.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a loader in it, and a bpfpatch on the path."""
    need_bpf()
    for name, line in (
        ("loader", f"exec {sys.executable} -S {HERE} named"),
        ("bpfpatch", f'exec {sys.executable} -m bpfpatch "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "lb.o").touch()
    return tmp_path


def run(line: str, folder: Path) -> None:
    """Run a line of the page as a shell would."""
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(line, shell=True, cwd=folder, env=env, check=True, capture_output=True)


def test_the_first_commands(folder: Path) -> None:
    """Each of the four at the top runs, and writes what it names."""
    lines = re.findall(r"^bpfpatch intercept .*\./loader lb\.o$", TEXT, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        run(line, folder)
    assert (folder / "lb.html").read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in (folder / "objects").iterdir()] == ["two.o"]
    assert "1 load: 1 loaded" in (folder / "loads.txt").read_text()


def test_the_ci_job(folder: Path) -> None:
    """The job's line counts what `make` starts; this loader has no lines for a tracefile."""
    need("make")
    (folder / "Makefile").write_text("test-bpf:\n\t@./loader\n")
    (line,) = re.findall(r"^bpfpatch intercept .* make test-bpf$", TEXT, re.MULTILINE)
    run(line, folder)
    told = (folder / "loads.txt").read_text()
    assert "no line info" in told
    assert "1 load: 1 rewritten" in told


def test_the_drop_in(folder: Path) -> None:
    """What ExecStart of the drop-in runs is a command line that works."""
    (line,) = re.findall(r"^ExecStart=(.+)$", TEXT, re.MULTILINE)
    for place, here in (("/usr/local/bin/", ""), ("/var/log/", f"{folder}/")):
        line = line.replace(place, here)
    run(re.sub(r"/usr/sbin/my-loader .*", "./loader", line), folder)
    assert (folder / "my-loader.log").exists()


def test_the_python_example(folder: Path) -> None:
    """The example in Python rewrites, and says so."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True
    )
    # What the loader itself prints may come in between.
    assert re.search(r"two(\{.*?\})? loaded\s+True", done.stdout), done.stdout
