"""The walk-through of docs/coverage.md works."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from support.inputs.bpfobjects import FIXTURES, XDP_TOOLS
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

PAGE = Path(__file__).resolve().parents[3] / "docs" / "coverage.md"
N_COMMANDS = 4


def test_the_walk_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its commands does its work, and the last one leaves a page."""
    pytest.importorskip("click")
    from click.testing import CliRunner

    from bpfpatch.cli.app import cli

    if not XDP_TOOLS.exists():
        pytest.skip("libxdp1 is not installed")
    need_bpf()
    monkeypatch.chdir(tmp_path)
    shutil.copy(FIXTURES / "packets.pcap", "traffic.pcap")
    (shown,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.S)
    commands = re.findall(r"^\$ bpfpatch (.*)$", shown, re.M)
    assert len(commands) == N_COMMANDS
    for command in commands:
        done = CliRunner().invoke(cli, shlex.split(command))
        assert done.exit_code == 0, done.output
    assert "parsing_helpers.h" in Path("filter.html").read_text()
