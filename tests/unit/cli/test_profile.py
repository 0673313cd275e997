"""bpfpatch profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.inputs import packets
from support.inputs.bpfobjects import fixture_path

FRAME = packets.tcp4("10.0.0.1", "10.0.0.2", 80).hex()
BALANCER = fixture_path("xdp_balancer.clang-19.v3.el.g.o")


@pytest.fixture
def counted(run: Any, tmp_path: Path) -> tuple[Path, Path]:
    """An instrumented object, and what one run of it counted."""
    obj, counters = tmp_path / "lb.cover.o", tmp_path / "counters.json"
    run("cover", BALANCER, "-o", obj)
    run("cover", "run", obj, "--hex", FRAME, "-o", counters)
    return obj, counters


def test_functions(run: Any, counted: tuple[Path, Path]) -> None:
    """A row for each function that ran, the most expensive first, and the sum."""
    lines = run("profile", *counted).stdout.splitlines()
    assert lines[0].split() == ["INSNS", "%", "TIMES", "FUNCTION"]
    rows = [line.split() for line in lines[1:-1]]
    assert {row[3] for row in rows} >= {"balancer", "parse_ip4"}
    assert [int(row[0]) for row in rows] == sorted((int(row[0]) for row in rows), reverse=True)
    assert lines[-1] == f"{sum(int(row[0]) for row in rows)} instructions ran"


def test_lines(run: Any, counted: tuple[Path, Path]) -> None:
    """Lines come with their text, and no more of them than asked for."""
    lines = run("profile", *counted, "--by", "line", "--top", "3").stdout.splitlines()
    assert len(lines) == 1 + 3 + 2
    assert "xdp_balancer.c:" in lines[1]
    assert lines[-1].endswith("more rows: see --top")


def test_json(run: Any, counted: tuple[Path, Path]) -> None:
    """All rows as JSON; shares add up to 1."""
    found = json.loads(run("profile", *counted, "--json").stdout)
    assert set(found) == {"insns", "functions", "lines", "blocks"}
    assert sum(row["share"] for row in found["blocks"]) == pytest.approx(1)


def test_picture(run: Any, counted: tuple[Path, Path], tmp_path: Path) -> None:
    """The most expensive function is drawn, or the one that is named."""
    out = tmp_path / "heat.dot"
    first = run("profile", *counted).stdout.splitlines()[1].split()[3]
    run("profile", *counted, "-o", out)
    assert out.read_text().startswith(f'digraph "{first}" {{')
    run("profile", *counted, "--function", "parse_ip4", "-o", out)
    assert out.read_text().startswith('digraph "parse_ip4" {')
    done = run("profile", *counted, "--function", "x", "-o", out, status=1)
    assert "0 functions are called 'x'" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "which counters?"),
        (("counters.json", "--function", "x"), "--function is of the picture"),
        (("counters.json", "-o", "heat.png"), "a picture's name ends in .dot, .gv, .svg"),
    ],
)
def test_wrong_arguments(
    run: Any, counted: tuple[Path, Path], args: tuple[str, ...], message: str
) -> None:
    """Wrong arguments exit with 2."""
    assert message in run("profile", counted[0], *args, status=2).stderr


def test_not_instrumented(run: Any, counted: tuple[Path, Path]) -> None:
    """An object that does not count says so."""
    assert run("profile", BALANCER, counted[1], status=1).stderr
