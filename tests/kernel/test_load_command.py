"""``bpfpatch load``, with the running kernel."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import bpfpatch as bp
from bpfpatch import kernel
from bpfpatch.cli.app import cli
from bpfpatch.facts.kinds import ProgType
from bpfpatch.linux.log.judge import judge_linked
from bpfpatch.loader.guess import Guess
from bpfpatch.passes import base
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

PLUGIN = """
from dataclasses import dataclass
from bpfpatch.passes import Pass, register
from bpfpatch.patch import Body

@register
@dataclass(frozen=True)
class Bad(Pass):
    \"\"\"Read a register that is not set.\"\"\"
    name = "bad"
    def run(self, patches):
        patches.prepend(int(patches.program.subprogs.start[-1]), Body.asm("r0 = r9"))
"""
REFUSED = "r1 = 0; r0 = *(u8 *)(r1 + 0); exit"


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


@pytest.fixture
def bpf_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in a bpf file system of its own, whose pins go with it."""
    (tmp_path / "bpf").mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", tmp_path / "bpf"], check=True)
    yield tmp_path / "bpf"
    subprocess.run(["umount", tmp_path / "bpf"], check=True)


def load(*args: str | Path, status: int = 0) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli, ["load", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.output


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    """A program that no kernel takes."""
    path = tmp_path / "refused.s"
    path.write_text(REFUSED)
    return path


@pytest.mark.parametrize(
    "name", ["xdp_balancer.clang-19.v3.el.g.o", "tail_calls.clang-19.v3.el.g.o"]
)
def test_figures_are_those_of_bpftool(name: str, bpf_folder: Path) -> None:
    """Verdicts and processed instructions are what bpftool prints."""
    told = json.loads(load(fixture_path(name), "--json"))
    done = subprocess.run(
        ["bpftool", "-d", "prog", "loadall", fixture_path(name), bpf_folder / "x"],
        capture_output=True, text=True, errors="replace", check=True,
    )  # fmt: skip
    theirs = [int(one) for one in re.findall(r"^processed (\d+) insns", done.stderr, re.MULTILINE)]
    ours = [program["processed"] for program in told["objects"][0]["programs"]]
    assert ours
    assert ours == theirs


def test_why(refused: Path) -> None:
    """A refusal is told with what was known and where it came from."""
    out = load(refused, "--why", status=1)
    assert "refused: R1 invalid mem access 'scalar'" in out
    assert "it knows of R1: 0" in out


def test_baseline(refused: Path, tmp_path: Path) -> None:
    """What was loaded and is refused is worse; what was refused before is not."""
    good = tmp_path / "good.s"
    good.write_text("r0 = 0; exit")
    before = tmp_path / "before.json"
    before.write_text(load(good, refused, "--json", status=1))
    load(good, refused, "--baseline", before)
    good.write_text(REFUSED)
    assert "worse: was loaded, and is refused" in load(good, "--baseline", before, status=1)
    good.write_text("r0 = 0; r0 = 0; r0 = 0; exit")
    out = load(good, refused, "--baseline", before, status=1)
    assert "4 instructions processed, were 2 (+100.0 %)" in out
    load(good, refused, "--baseline", before, "--tolerance", "100")


def test_pin(bpf_folder: Path) -> None:
    """Programs are pinned if all load."""
    load(fixture_path("xdp_balancer.clang-19.v3.el.g.o"), "--pin", bpf_folder / "pins")
    assert [one.name for one in (bpf_folder / "pins").iterdir()]


def test_type_by_section(tmp_path: Path) -> None:
    """A kind may go by the name of a section."""
    flat = tmp_path / "flat.bin"
    flat.write_bytes(bytes.fromhex("b700000000000000 9500000000000000"))
    data: Any = json.loads(load(flat, "--type", "classifier", "--json"))
    assert data["objects"][0]["programs"][0]["type"] == "sched_cls"
    assert data["loaded"] == 1


def test_a_refusal_of_a_rewriting_is_told_in_the_original(tmp_path: Path) -> None:
    """Of a rewritten object the place is the original's, or the pass is named."""
    obj = bp.ElfObject.read(fixture_path("xdp_balancer.clang-19.v3.el.g.o"))
    patches = bp.PatchList(obj.code)
    start = obj.programs[0].start
    with patches.as_pass("bad"):
        patches.prepend(start, bp.Body.asm("r0 = 1; r0 = r9"))
    done = patches.linearize()
    rewritten = obj.with_code(done)
    name = obj.programs[0].name
    with kernel.open_object(rewritten, []) as opened:
        verdict = judge_linked(
            opened, rewritten.link(name), Guess(ProgType.XDP), done.remap, obj.code
        )
    assert verdict.refusal is not None
    assert (verdict.refusal.original, verdict.refusal.inserted_by) == (None, "bad")


def test_load_check_mends_what_a_pass_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel refuses of a rewriting is mended before it is written."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    plugin = tmp_path / "bad.py"
    plugin.write_text(PLUGIN)
    out = tmp_path / "out.o"
    source = fixture_path("xdp_balancer.clang-19.v3.el.g.o")
    args = ["apply", "--plugin", plugin, "-p", "bad", "--load-check", source, "-o", out]
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    assert "unset (nothing changes" in result.output
    load(out)
