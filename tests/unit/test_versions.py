"""What pyproject.toml allows is what is tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_oldest_versions_are_those_that_are_tested() -> None:
    """.ci/oldest.txt pins each dependency of the package at the lowest version allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {}
    for line in (*project["dependencies"], *project["optional-dependencies"]["cli"]):
        name, _, floor = line.partition(">=")
        floors[name] = [int(part) for part in floor.split(".")]
    pins = re.findall(r"^(\w+)==([\d.]+)$", (ROOT / ".ci/oldest.txt").read_text(), re.M)
    assert {name for name, _ in pins} == set(floors)
    for name, version in pins:
        parts = [int(part) for part in version.split(".")]
        assert parts[: len(floors[name])] == floors[name]
        assert not any(parts[len(floors[name]) :])
