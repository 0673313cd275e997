"""``--set``: values for variables, in the commands that take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.inputs.compiled import compile_bpf

SOURCE = """
struct limits { unsigned int max; unsigned int low; };
const volatile struct limits limits = { 5, 1 };
const volatile _Bool is_on = 0;
SEC("xdp") int run(struct xdp_md *ctx) { return is_on ? limits.max : limits.low; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object with settings."""
    return compile_bpf(tmp_path_factory.mktemp("set"), SOURCE)


def test_apply_writes_defaults(run: Any, run_json: Any, source: Path, tmp_path: Path) -> None:
    """Without a pipeline, apply gives the object new defaults; --set goes before a file."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"limits": {"max": 8, "low": 2}, "is_on": True}))
    out = tmp_path / "out.o"
    run("apply", "--set-file", config, "--set", "limits.max=9", source, "-o", out)
    found = {one["name"]: one["value"] for one in run_json("info", "--globals", out)["globals"]}
    assert found == {"limits": {"max": 9, "low": 2}, "is_on": True}
    assert '{"max": 9, "low": 2}' in run("info", "--globals", out).stdout


def test_exec_runs_with_values(run_json: Any, source: Path) -> None:
    """Exec runs the program with the given values."""
    assert run_json("exec", source)["runs"][0]["r0"] == 1
    assert (
        run_json("exec", "--set", "is_on=on", "--set", "limits.max=77", source)["runs"][0]["r0"]
        == 77
    )


def test_cover_run_counts_with_values(run: Any, source: Path, tmp_path: Path) -> None:
    """Cover run takes the other side of the branch that a value decides."""
    counts = []
    for name, options in (("a", ()), ("b", ("--set", "is_on=1"))):
        out, kept = tmp_path / f"{name}.json", tmp_path / f"{name}.o"
        run("cover", "run", source, *options, "-o", out, "--object", kept)
        counts.append(out.read_text())
    assert counts[0] != counts[1]


def test_verify_runs_both_with_values(run: Any, source: Path, tmp_path: Path) -> None:
    """Two objects that differ in a default are the same once it is given, and not varied."""
    out = tmp_path / "out.o"
    run("apply", "--set", "is_on=1", source, "-o", out)
    run("verify", "--seconds", "1", source, out, status=1)
    run("verify", "--seconds", "1", "--set", "is_on=1", source, out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "is_on"], "NAME=VALUE"),
        (["--set", "is_on=1", "--set", "is_on=0"], "gives is_on twice"),
    ],
)
def test_wrong_options_are_refused(
    run: Any, source: Path, options: list[str], message: str
) -> None:
    """What is no NAME=VALUE, or comes twice, is a wrong argument."""
    assert message in run("exec", *options, source, status=2).output


def test_wrong_files_are_refused(run: Any, source: Path, tmp_path: Path) -> None:
    """A file of settings holds one JSON object."""
    config = tmp_path / "config.json"
    for text, message in (("{", "is no JSON"), ("[1]", "holds no JSON object")):
        config.write_text(text)
        assert message in run("exec", "--set-file", config, source, status=1).output


def test_code_without_an_object_has_no_variables(run: Any, tmp_path: Path) -> None:
    """--set on assembly is an error."""
    code = tmp_path / "code.s"
    code.write_text("r0 = 0\nexit\n")
    assert "this is none" in run("exec", "--set", "a=1", code, status=1).output
