"""What commands print as JSON is what their schemas say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

click = pytest.importorskip("click")
jsonschema = pytest.importorskip("jsonschema")

from click.testing import CliRunner, Result  # noqa: E402 - needs click

from bpfpatch.cli.app import cli  # noqa: E402
from support.cases.schemas import SCHEMAS, check  # noqa: E402
from support.inputs.bpfobjects import fixture_path  # noqa: E402

DEMO = str(files("bpfpatch").joinpath("data", "demo.o"))
ASM = "main: r0 = 1; if r1 != 0 goto out; r0 = 2; out: exit"
PACKET = "00" * 64


def commands() -> Iterator[tuple[str, click.Command]]:
    """(name without ``bpfpatch``, command) of all there are."""
    waiting: list[tuple[str, click.Command]] = [("", cli)]
    while waiting:
        path, command = waiting.pop()
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                waiting.append((f"{path} {name}".strip(), found))


def test_every_command_with_json_has_a_schema() -> None:
    """Each command that prints JSON has a schema, and no schema is left over."""
    have = {
        path.replace(" ", "-")
        for path, command in commands()
        if any("--json" in param.opts for param in command.params)
    }
    assert set(SCHEMAS) == have | {"cover-report"}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_sound(name: str) -> None:
    """Each is a schema of the draft that it names."""
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["title"].startswith(f"bpfpatch {name.replace('cover-r', 'cover r')}"[:13])


Make = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Runs a command in a folder with an object and three programs, and reads its JSON."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.s").write_text(ASM)
    (tmp_path / "b.s").write_text(ASM.replace("2", "3"))
    (tmp_path / "trap.s").write_text("r0 = *(u64 *)(r1 + 4096); exit")
    (tmp_path / "demo.o").write_bytes(Path(DEMO).read_bytes())
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "demo.o").write_bytes(Path(DEMO).read_bytes())
    (tmp_path / "objects" / "notes.txt").write_text("no object")

    def start(*args: str, is_json: bool = True) -> Any:
        done: Result = CliRunner().invoke(cli, [*args, *(["--json"] if is_json else [])])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return json.loads(done.stdout) if is_json else done

    return start


CASES = [
    ("info", [DEMO]),
    ("info", ["--kernel", "4.4", str(fixture_path("globals.clang-19.v3.el.g.o"))]),
    ("info", [str(fixture_path("asm_no_symbols.clang-19.v4.el.o"))]),
    ("dump", [DEMO]),
    ("dump", ["a.s"]),
    ("apply", ["-p", "dce,sprinkle{seed=1}", DEMO]),
    ("apply", ["-p", "nops", "a.s", "-o", "c.s", "--diff", "--verify", "--verify-runs", "20"]),
    ("apply", ["objects", "-o", "out", "-p", "nops"]),
    ("diff", ["a.s", "b.s"]),
    ("passes", []),
    ("extract", [DEMO, "--list"]),
    ("extract", [DEMO, "-o", "found"]),
    ("exec", [DEMO, "--hex", PACKET, "--trace"]),
    ("exec", ["a.s", "--hex", "0011"]),
    ("exec", ["trap.s", "--hex", "0011"]),
    ("verify", ["a.s", "b.s", "--runs", "50"]),
    ("verify", ["a.s", "a.s", "--runs", "50"]),
    ("verify", ["objects", "objects", "--runs", "20", "--seconds", "0.5"]),
    ("rules", []),
    ("shrink", ["demo.o", "-o", "small.o", "--no-kernel"]),
]


@pytest.mark.parametrize(("name", "args"), CASES)
def test_what_is_printed_is_what_the_schema_says(name: str, args: list[str], run: Make) -> None:
    """Each command's JSON has all keys that its schema asks for, and no others."""
    check(name, run(name, *args))


def test_counted_objects_are_reported_by_their_schemas(run: Make) -> None:
    """The same for the report of what ran, and for where instructions were spent."""
    run("cover", "demo.o", "-o", "counted.o", is_json=False)
    run("cover", "run", "counted.o", "--hex", PACKET, "-o", "counts.json", is_json=False)
    report = run("cover", "report", "counted.o", "counts.json", "--format", "json", is_json=False)
    check("cover-report", json.loads(report.stdout))
    check("profile", run("profile", "counted.o", "counts.json"))
