"""``bpfpatch passes``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bpfpatch.passes import registered


def test_all_passes_are_listed(run: Any) -> None:
    """Every registered pass is in the list, with what it does."""
    text = run("passes").stdout
    for name, one in registered().items():
        assert name in text
        assert one.summary() in text


def test_json_has_options_with_types_and_defaults(run_json: Any) -> None:
    """The JSON list has each option's type and default."""
    by_name = {one["name"]: one for one in run_json("passes")}
    assert by_name["sprinkle"]["loadable"] is True
    options = {one["name"]: one for one in by_name["sprinkle"]["options"]}
    assert (options["every"]["type"], options["every"]["default"]) == ("int", 1)
    assert options["seed"]["default"] is None


def test_one_pass_has_its_whole_docstring(run: Any) -> None:
    """A name gives all there is to know about that pass."""
    text = run("passes", "sprinkle").stdout
    assert "stress test" in text
    assert "every=1  (int)" in text


def test_one_pass_in_json(run_json: Any) -> None:
    """A name and --json give a list of that pass."""
    assert [one["name"] for one in run_json("passes", "nops")] == ["nops"]


def test_unknown_pass_exits_2(run: Any) -> None:
    """A pass that there is none of is a wrong argument."""
    assert "sprinkle" in run("passes", "nosuch", status=2).stderr


def test_plugin_passes_are_listed(run: Any, tmp_path: Path) -> None:
    """Passes of a plugin are in the list."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from bpfpatch.passes import Pass, register\n"
        "@register\n@dataclass(frozen=True)\n"
        "class Listed(Pass):\n"
        '    """Be listed."""\n'
        "    name = 'listed'\n"
        "    def run(self, patches): pass\n"
    )
    assert "Be listed." in run("passes", "--plugin", path).stdout
