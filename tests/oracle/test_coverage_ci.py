"""The workflow and the settings of docs/coverage-ci.md do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.inputs.bpfobjects import FIXTURES
from support.machine.tools import need, need_bpf

pytestmark = pytest.mark.kernel

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "coverage-ci.md").read_text()
FILTER = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp") int filter(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 14 > end)
		return XDP_DROP; // LCOV_EXCL_LINE: all frames of the capture are longer
%s	return data[12] == 8 ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
"""
CHANGE = "\tif (data[0] == %s)\n\t\tdata[1] = 7;\n"
COUNT = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

unsigned long long n_bytes;

SEC("xdp") int count(struct xdp_md *ctx)
{
	n_bytes += ctx->data_end - ctx->data;
	return XDP_PASS;
}
"""


def steps() -> dict[str, str]:
    """The commands of each step of the workflow, by name."""
    (workflow,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    found = re.findall(
        r"^      - name: (.*)\n        run: (?:\|\n((?:          .*\n)+)|(.*)\n)", workflow, re.M
    )
    assert len(found) == workflow.count("run: ")
    return {name: textwrap.dedent(many) or one for name, many, one in found}


def shim(folder: Path, name: str, text: str) -> None:
    """A command that stands in for another one."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def ran(command: str, project: Path, status: int = 0) -> str:
    """Run a step as the runner does; what it printed."""
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=project,
        env={
            **os.environ,
            "PATH": f"{project / '.shims'}{os.pathsep}{scripts}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(project / "summary.md"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def commit(project: Path, text: str) -> None:
    """Commit all that is there."""
    git = "git -c user.name=t -c user.email=t@t.invalid -c commit.gpgsign=false"
    ran(f"git add -A && {git} commit --quiet --message '{text}'", project)


def begun(tmp_path: Path) -> Path:
    """A repository with two programs, a capture, and what a runner has."""
    need_bpf()
    need("clang-19", "git")
    pytest.importorskip("diff_cover", reason="diff-cover is not installed")
    if not Path("/usr/include/bpf/bpf_helpers.h").exists():
        pytest.skip("not installed: libbpf-dev")
    shims = tmp_path / ".shims"
    shims.mkdir()
    shim(shims, "sudo", 'exec "$@"')
    shim(shims, "apt-get", 'echo "apt-get $*"')
    shim(shims, "python", f'[ "$2" = pip ] && echo "pip $*" || exec {sys.executable} "$@"')
    (shims / "clang").symlink_to(str(shutil.which("clang-19")))
    (tmp_path / ".gitignore").write_text("build\ncover\n.shims\ncoverage.*\nsummary.md\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "src" / "filter.bpf.c").write_text(FILTER % "")
    (tmp_path / "src" / "count.bpf.c").write_text(COUNT)
    shutil.copy(FIXTURES / "packets.pcap", tmp_path / "tests" / "traffic.pcap")
    ran("git init --quiet --initial-branch main", tmp_path)
    commit(tmp_path, "Begin")
    ran("git update-ref refs/remotes/origin/main main", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project with a change that the capture covers, and what each step printed."""
    project = begun(tmp_path_factory.mktemp("covered"))
    (project / "src" / "filter.bpf.c").write_text(FILTER % (CHANGE % "data[1]"))
    commit(project, "Change")
    return project, {name: ran(command, project) for name, command in steps().items()}


def test_each_command_of_the_workflow(worked: tuple[Path, dict[str, str]]) -> None:
    """From the source to a verdict on a change that the capture covers."""
    project, found = worked
    assert "pip -m pip install bpfpatch diff-cover" in found["Install"]
    assert "MISSING" in found["Report"]
    assert (project / "summary.md").read_text().startswith("### Coverage of ")
    assert (project / "coverage.html").stat().st_size > 10_000
    assert "src/filter.bpf.c (100%)" in found["Judge the change"]


def test_settings_of_the_document(worked: tuple[Path, dict[str, str]]) -> None:
    """The settings are read, and hold."""
    project, _ = worked
    (project / "coverage.xml").unlink()
    (settings,) = re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    (project / "pyproject.toml").write_text(settings)
    assert "MISSING" in ran("bpfpatch cover report cover", project)
    assert (project / "coverage.xml").exists()
    shown = ran("bpfpatch cover build/filter.bpf.o -o percpu.o", project)
    assert "counters in cover_" in shown


def test_what_a_change_leaves_uncovered(tmp_path: Path) -> None:
    """A line that the change adds and nothing runs is named, and fails."""
    project = begun(tmp_path)
    text = FILTER % (CHANGE % "0xfe && data[1] == 0xfd")
    (project / "src" / "filter.bpf.c").write_text(text)
    commit(project, "Change")
    (project / "src" / "count.bpf.c").unlink()
    for name in ("Compile", "Make the objects count", "Run", "Report"):
        ran(steps()[name], project)
    told = ran(steps()["Judge the change"], project, status=1)
    line = text[: text.index("data[1] = 7")].count("\n") + 1
    assert re.search(rf"src/filter\.bpf\.c \(.*\): Missing lines {line}$", told, re.M)
