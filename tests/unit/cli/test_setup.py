"""``--map`` and ``--setup``, in the commands that run programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bpfpatch import Setup
from support.inputs.configured import configured
from support.machine.tools import need_bpf

DOCS = Path(__file__).parents[3] / "docs" / "setup.md"
PACKET = ("--hex", "00" * 64)
RULE = ("--map", "cfg[2]={limit=10,mode=DROP}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that returns what it finds."""
    return configured(tmp_path_factory.mktemp("setup"))


@pytest.fixture
def setup(tmp_path: Path) -> Path:
    """A setup file."""
    path = tmp_path / "setup.json"
    maps = {"ports": [{"key": 80, "value": 1}], "cfg": [{"key": 2, "value": {"limit": 5}}]}
    path.write_text(json.dumps({"variables": {"scale": 2, "start": 100}, "maps": maps}))
    return path


def r0(found: Any) -> int:
    """The result of the only run."""
    return int(found["runs"][0]["r0"])


def test_exec_starts_with_entries(run_json: Any, source: Path) -> None:
    """Exec puts entries into maps before it runs the program."""
    assert r0(run_json("exec", source, *PACKET, *RULE, "--map", "ports[80]=3")) == 713


def test_a_file_gives_variables_and_entries(run_json: Any, source: Path, setup: Path) -> None:
    """A setup file has both; --set and --map go before it."""
    assert r0(run_json("exec", source, *PACKET, "--setup", setup)) == 2 * 106
    found = run_json("exec", source, *PACKET, "--setup", setup, *RULE, "--set", "scale=1")
    assert r0(found) == 100 + 1 + 710


def test_cover_and_profile_run_with_entries(run: Any, source: Path, tmp_path: Path) -> None:
    """Cover run and profile take the other side of the branch that an entry decides."""
    counts = []
    for name, options in (("a", ()), ("b", ("--map", "ports[80]=3"))):
        out = tmp_path / f"{name}.json"
        run("cover", "run", source, *PACKET, *options, "-o", out)
        counts.append(json.loads(out.read_text()))
    assert counts[0] != counts[1]
    insns = [
        json.loads(run("profile", source, *PACKET, *options, "--json").stdout)["insns"]
        for options in ((), ("--map", "ports[80]=3"))
    ]
    assert insns[0] < insns[1]


def test_profile_takes_counters_or_input(run: Any, source: Path, tmp_path: Path) -> None:
    """Counters and a run to make some exclude each other."""
    message = run("profile", source, tmp_path / "x.json", *PACKET, status=2).output
    assert "give them, or what to run, not both" in message


def test_a_saved_difference_comes_again_with_its_setup(
    run: Any, run_json: Any, source: Path, tmp_path: Path
) -> None:
    """What verify --json found is found again by --input alone, with the setup that it took."""
    other, saved = tmp_path / "other.o", tmp_path / "saved.json"
    # A default that plays a part only where there is something to scale.
    run("apply", "--set", "scale=9", source, "-o", other)
    options = ("--seconds", "2", "--fixed-rodata")
    with_rule = (*RULE, "--map", "ports[80]=3")
    found = run_json("verify", *options, *with_rule, source, other, status=1)
    saved.write_text(json.dumps(found))
    setup = found["programs"][0]["counterexample"]["setup"]
    assert setup["maps"]["ports"] == [{"key": "80", "value": "3"}]
    again = run("verify", "--runs", "1", "--input", saved, source, other, status=1).stdout
    assert "map cfg[2] = {limit=10,mode=DROP}" in again
    assert f"R0: {hex(713)} before, {hex(9 * 713)} after" in again


def test_verify_leaves_the_setup_alone(run: Any, source: Path, tmp_path: Path) -> None:
    """Entries that are given are not varied: what only others tell apart is not found."""
    other = tmp_path / "other.o"
    run("apply", "--set", "scale=9", source, "-o", other)
    run("verify", "--seconds", "1", "--set", "scale=4", *RULE, source, other)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--map", "ports=1"], 2, "an entry is NAME[KEY]=VALUE"),
        (["--map", "ports[80]=1", "--map", "ports[80]=2"], 2, "--map gives ports[80] twice"),
        (["--map", "prots[80]=1"], 1, "did you mean ports"),
        (["--map", "cfg[9]={limit=1}"], 1, "the map has 4 elements"),
    ],
)
def test_wrong_options_are_refused(
    run: Any, source: Path, options: list[str], status: int, message: str
) -> None:
    """A wrong form is a wrong argument; a wrong name or value is the object's error."""
    assert message in run("exec", *options, source, *PACKET, status=status).output


def test_wrong_files_are_refused(run: Any, source: Path, tmp_path: Path) -> None:
    """A setup file that is none says what is wrong, and an input file likewise."""
    path = tmp_path / "x.json"
    for text, message in (("{", "is no JSON"), ('{"vars": {}}', "no 'vars'")):
        path.write_text(text)
        assert message in run("exec", "--setup", path, source, *PACKET, status=1).output
    for text, message in (
        ("[]", "holds no JSON object"),
        ('{"programs": []}', "holds no inputs"),
        ('{"packet": "zz"}', "is not an input"),
    ):
        path.write_text(text)
        assert message in run("verify", "--input", path, source, source, status=2).output


def test_the_file_in_the_docs_is_one() -> None:
    """The example of docs/setup.md is read as a setup with what it says."""
    (text,) = re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)
    setup = Setup.from_json(json.loads(text))
    assert set(setup.variables) == {"is_strict", "limits"}
    assert [one.map for one in setup.entries] == ["ports", "ports", "cfg", "routes"]


@pytest.mark.kernel
def test_a_difference_of_the_kernel_comes_again_there(
    run: Any, run_json: Any, source: Path, tmp_path: Path
) -> None:
    """Without --mode, a saved input runs in the mode in which it made a difference."""
    need_bpf()
    other, saved = tmp_path / "other.o", tmp_path / "saved.json"
    run("apply", "--set", "scale=9", source, "-o", other)
    options = ("--ignore", "maps:.rodata", "--fixed-rodata", "--mode", "jit", "--runs", "50", *RULE)
    saved.write_text(json.dumps(run_json("verify", *options, source, other, status=1)))
    options = ("--ignore", "maps:.rodata", "--runs", "1", "--input", str(saved))
    again = run_json("verify", *options, source, other, status=1)
    assert again["programs"][0]["counterexample"]["mode"] == "jit"
