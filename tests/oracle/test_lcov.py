"""lcov and genhtml read the tracefile."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.lcov import to_lcov
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.writesources import write_known_lines
from support.machine.tools import need
from support.models.countedcode import counted

RATES = ("lines", "functions", "branches")
EXPECTED = {"lines": (6, 8), "functions": (1, 2), "branches": (3, 4)}
"""Of the example; `bare` has no line, and so is in no tracefile."""


def tracefile(folder: Path, coverage: Coverage, sources: Sources) -> Path:
    """Write the tracefile."""
    path = folder / "a.info"
    path.write_text(to_lcov(coverage, sources, "hand"))
    return path


def ran(*args: str | Path, cwd: Path) -> str:
    """Run a tool that must succeed and not complain; its output."""
    done = subprocess.run(
        list(map(str, args)), cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"warning|error", done.stdout + done.stderr, re.IGNORECASE), done.stderr
    return done.stdout + done.stderr


def branch_option(tool: str) -> list[str]:
    """How to ask for branches: the setting has another name from lcov 2 on."""
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"(\d+)\.\d", version.stdout)
    assert found is not None
    name = "branch_coverage" if int(found[1]) >= 2 else "lcov_branch_coverage"
    return ["--rc", f"{name}=1"]


def rates(text: str) -> dict[str, tuple[int, int]]:
    """What a tool counted, by kind."""
    found = re.findall(r"(lines|functions|branches)\.+: +[\d.]+% \((\d+) of (\d+)", text)
    return {kind: (int(hit), int(total)) for kind, hit, total in found}


def test_summary(tmp_path: Path) -> None:
    """``lcov --summary`` counts the same lines, functions and branches."""
    need("lcov")
    coverage = counted()
    path = tracefile(tmp_path, coverage, Sources.find(coverage))
    text = ran("lcov", *branch_option("lcov"), "--summary", path, cwd=tmp_path)
    assert rates(text) == EXPECTED


def test_two_runs_add_up(tmp_path: Path) -> None:
    """``lcov -a`` adds two tracefiles to one with twice the counts."""
    need("lcov")
    coverage = counted()
    path = tracefile(tmp_path, coverage, Sources.find(coverage))
    options = branch_option("lcov")
    ran("lcov", *options, "-a", path, "-a", path, "-o", "both.info", cwd=tmp_path)
    rows = (tmp_path / "both.info").read_text().splitlines()
    assert {"FNDA:20,main", "DA:4,20", "DA:13,0", "BRDA:4,0,0,6", "BRDA:5,0,0,0"} <= set(rows)


@pytest.fixture(scope="module")
def genhtml(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What genhtml says and makes of the example, with the lines known written to files."""
    need("genhtml")
    folder = tmp_path_factory.mktemp("genhtml")
    coverage = counted()
    sources = write_known_lines(coverage, Sources.find(coverage), folder / "src")
    path = tracefile(folder, coverage, sources)
    said = ran("genhtml", *branch_option("genhtml"), path, "-o", folder / "out", cwd=folder)
    return said, folder / "out"


def test_genhtml_counts_the_same(genhtml: tuple[str, Path]) -> None:
    """What genhtml counts is the same, and it complains of nothing."""
    said, _ = genhtml
    assert rates(said) == EXPECTED


def test_genhtml_shows_the_lines(genhtml: tuple[str, Path]) -> None:
    """The page has the source lines that are known."""
    _, out = genhtml
    (page,) = out.rglob("a.c.gcov.html")
    text = page.read_text()
    assert "int main(int a, int b)" in text
    assert "if (b &gt; 5)" in text


def test_genhtml_without_sources(tmp_path: Path) -> None:
    """Without source files, genhtml goes by the tracefile if it is told to."""
    need("genhtml")
    coverage = counted()
    path = tracefile(tmp_path, coverage, Sources.find(coverage))
    done = subprocess.run(
        ["genhtml", *branch_option("genhtml"), "--ignore-errors", "source", path, "-o", "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert rates(done.stdout) == EXPECTED
