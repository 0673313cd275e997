"""What commands print of the kernel's answers as JSON is what their schemas say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

click = pytest.importorskip("click")

from click.testing import CliRunner  # noqa: E402 - needs click

from bpfpatch import kernel  # noqa: E402
from bpfpatch.cli.app import cli  # noqa: E402
from support.cases.schemas import check  # noqa: E402
from support.inputs.bpfobjects import fixture_path  # noqa: E402
from support.machine.tools import need_bpf  # noqa: E402

pytestmark = pytest.mark.kernel

BALANCER = str(fixture_path("xdp_balancer.clang-19.v3.el.g.o"))
PACKET = "00" * 64
BAD = "r0 = *(u64 *)(r9 + 0); exit"
BAD_LEADS = "r1 = *(u32 *)(r1 + 0); r0 = *(u8 *)(r1 + 0); exit"
CASES = [
    ("load", [BALANCER]),
    ("load", ["bad.s", "stray.s", "--type", "xdp", "--why"]),
    ("kernel-diff", [BALANCER]),
    ("repair", [BALANCER, "-o", "out.o", "--verify-seconds", "0.2"]),
    ("exec", [BALANCER, "--hex", PACKET, "--mode", "jit"]),
    ("verify", [BALANCER, BALANCER, "--mode", "jit", "--runs", "20"]),
]


@pytest.mark.parametrize(("name", "args"), CASES)
def test_what_is_printed_is_what_the_schema_says(
    name: str, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command's JSON has all keys that its schema asks for, and no others."""
    need_bpf()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.s").write_text(BAD)
    (tmp_path / "stray.s").write_text(BAD_LEADS)
    done = CliRunner().invoke(cli, [name, *args, "--json"])
    check(name, json.loads(done.stdout))


def test_a_loaded_program_is_told_by_its_schema() -> None:
    """The same for info and dump of a program that the kernel has."""
    need_bpf()
    with kernel.open_object(BALANCER) as loaded:
        number = str(loaded.programs["balancer"].info().id)
        for name in ("info", "dump"):
            done = CliRunner().invoke(cli, [name, "--prog-id", number, "--json"])
            check(name, json.loads(done.stdout))
