"""``bpfpatch kernel-diff`` on objects that load."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bpfpatch.cli.app import cli
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

BALANCER = "xdp_balancer.clang-19.v3.el.g.o"
DEAD = "asm_dead_code.clang-19.v4.el.o"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def run(*args: str | Path, status: int = 0) -> Result:
    """Run the command; ``status`` is what it must exit with."""
    result = CliRunner().invoke(cli, ["kernel-diff", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def test_an_equal_program() -> None:
    """An equal program is said to be so, with each source."""
    out = run(fixture_path(BALANCER), "--aux", "both").stdout
    assert out == "balancer, aux from kernel: equal\nbalancer, aux from offline: equal\n"


def test_all_shows_it_side_by_side() -> None:
    """With --all the code is shown, slots of both sides in front."""
    out = run(fixture_path(BALANCER), "--all").stdout
    assert re.search(r"^ +0 +0 +r6 = \*\(u64 \*\)\(r1 \+ 0x8\)$", out, re.M)


def test_a_folder_is_a_table(tmp_path: Path) -> None:
    """Of several objects there is a table, and progress on the standard error."""
    for name in (BALANCER, DEAD):
        shutil.copy(fixture_path(name), tmp_path / name)
    result = run(tmp_path)
    assert re.search(r"^all +\d+ +\d+ +\d+$", result.stdout, re.M)
    assert "[1/2]" in result.stderr


def test_json_keys_are_described() -> None:
    """Each key of the JSON is in the command's section."""
    found = json.loads(run(fixture_path(BALANCER), "--json").stdout)
    section = re.search(r"^## kernel-diff$.*?(?=^## )", DOCS.read_text(), re.M | re.S)
    assert section is not None
    keys = set(found) | set(found["programs"][0]) | set(found["totals"][0])
    assert {key for key in keys if f"`{key}`" not in section[0]} == set()
    assert found["totals"][0]["equal"] == found["totals"][0]["total"] == 1


def test_hardened() -> None:
    """With --harden constants are blinded on both sides."""
    assert "equal" in run(fixture_path(BALANCER), "--harden").stdout


def test_an_unknown_program() -> None:
    """A program that is not there is a wrong argument."""
    result = run(fixture_path(BALANCER), "--prog", "nobody", status=2)
    assert "there is no program 'nobody'" in result.output


def test_nothing_to_compare(tmp_path: Path) -> None:
    """A folder without objects, and an object that does not load, are failures."""
    assert "no *.o" in run(tmp_path, status=2).output
    other = "alu32.clang-16.v2.eb.o"
    assert "kernel loads none" in run(fixture_path(other), status=2).output
