"""What the tests of the command line share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bpfpatch.cli.app import cli
from bpfpatch.passes import base
from support.inputs.bpfobjects import fixture_path

Run = Callable[..., Result]

DEMO = "xdp_balancer.clang-19.v3.el.g.o"


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that a test's plugin registers are gone after it."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))


@pytest.fixture
def run() -> Run:
    """Runs a command line in this process; ``status`` is what it must exit with."""

    def invoke(*args: str | Path, status: int = 0, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    return invoke


@pytest.fixture
def run_json(run: Run) -> Callable[..., Any]:
    """Runs a command line, and parses what it printed."""

    def invoke(*args: str | Path, status: int = 0) -> Any:
        return json.loads(run(*args, "--json", status=status).stdout)

    return invoke


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A copy of the balancer."""
    return Path(shutil.copy(fixture_path(DEMO), tmp_path / "lb.o"))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The balancer, cut off in the middle."""
    path = tmp_path / "broken.o"
    path.write_bytes(fixture_path(DEMO).read_bytes()[:9000])
    return path
