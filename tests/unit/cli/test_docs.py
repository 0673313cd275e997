"""docs/cli.md tells the truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.cli.app import COMMANDS

DOCS = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def keys_in(value: Any) -> set[str]:
    """All keys of a JSON value, but those that are names of tables or of a variable's members."""
    if isinstance(value, list):
        return set().union(*map(keys_in, value))
    if not isinstance(value, dict):
        return set()
    inner = {key: one for key, one in value.items() if key not in ("records", "value")}
    return set(value).union(*map(keys_in, inner.values()))


def test_every_command_has_a_section() -> None:
    """Each command is described."""
    headings = re.findall(r"^## ([\w-]+)$", DOCS.read_text(), re.MULTILINE)
    assert set(COMMANDS) <= set(headings)


def test_every_command_is_in_the_overview() -> None:
    """The table at the top has them all, and no others."""
    table = DOCS.read_text().split("\n## ", 1)[0]
    named = {row.split()[0] for row in re.findall(r"^\|[^`|]*`([^`]+)`", table, re.MULTILINE)}
    assert {name.removeprefix("bpfpatch ") for name in named} == set(COMMANDS)


@pytest.mark.parametrize(
    "args",
    [
        ["info", "lb.o"],
        ["dump", "lb.o"],
        ["apply", "-p", "sprinkle", "lb.o", "--diff"],
        ["diff", "lb.o", "lb.o"],
        ["passes"],
        ["extract", "--list", "lb.o"],
    ],
    ids=lambda args: args[0],
)
def test_every_key_is_described(
    run_json: Any, demo: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    """Each key of a command's JSON is in its section."""
    monkeypatch.chdir(demo.parent)
    keys = keys_in(run_json(*args))
    text = DOCS.read_text()
    if args[0] != "apply":
        text = re.search(rf"^## {args[0]}$.*?(?=^## |\Z)", text, re.M | re.S)[0]
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_example_plugin_works(run: Any, demo: Path, tmp_path: Path) -> None:
    """The example of a plugin does what it says."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "clear.py").write_text(code)
    options = ["--plugin", tmp_path / "clear.py", "-p", "clear-result{value=1},nops"]
    out = run("apply", *options, demo, "--diff").stdout
    assert "r0 = 0x1  ; clear-result" in out
