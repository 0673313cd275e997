"""docs/repair.md can be done as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bpfpatch.repair import kinds
from support.machine.tools import need, need_bpf

pytestmark = pytest.mark.kernel

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "repair.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)
]  # fmt: skip


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Status and output of each command, run one after the other."""
    need_bpf()
    need("clang-19")
    folder = tmp_path_factory.mktemp("walk")
    (source,) = re.findall(r"```asm\n(.*?)```", TEXT, re.DOTALL)
    (folder / "port.s").write_text(source)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    out = {}
    for command in COMMANDS:
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**os.environ, "PATH": path},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        out[command] = done.returncode, done.stdout + done.stderr
    return out


def test_commands_end_as_they_should(outputs: dict[str, tuple[int, str]]) -> None:
    """All succeed, but for the load of what is refused, and the diff, which finds one."""
    fails = {command for command, (status, _) in outputs.items() if status}
    assert fails == {"bpfpatch load --why port.o", "bpfpatch diff -U 1 port.o port.loads.o"}


def test_refused_and_then_loaded(outputs: dict[str, tuple[int, str]]) -> None:
    """The report says why, and the repaired object loads."""
    assert "it knows of R9: 0" in outputs["bpfpatch load --why port.o"][1]
    report = outputs["bpfpatch repair port.o -o port.loads.o"][1]
    assert "nothing changes, shown by z3" in report
    assert "1 of 1 program loaded" in outputs["bpfpatch load port.loads.o"][1]
    assert "1 of 1 program loaded" in outputs["bpfpatch load port.counted.o"][1]
    assert "if r9 == 0x0 goto" in outputs["bpfpatch diff -U 1 port.o port.loads.o"][1]


def test_docs_have_all_kinds() -> None:
    """Each kind of mending has a row."""
    sources = Path(kinds.__file__).parent.glob("*.py")
    named = {
        name for file in sources for name in re.findall(r'Mended\(\s*"([\w-]+)"', file.read_text())
    }
    assert named
    assert {name for name in named if f"| `{name}` |" not in TEXT} == set()
