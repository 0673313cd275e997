"""``bpfpatch cover report``: what ran, in many forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from support.inputs import packets
from support.inputs.bpfobjects import fixture_path

SOURCES = fixture_path("x").parents[1]
BALANCER = fixture_path("xdp_balancer.clang-19.v3.el.g.o")
NO_LINES = fixture_path("asm_branches.clang-19.v4.el.o")
HEX = packets.SAMPLES["tcp_to_balancer"].hex()

Run = Callable[..., Any]


@pytest.fixture
def counted(run: Run, tmp_path: Path) -> tuple[Path, Path]:
    """An object that counts, and the counters of one run."""
    return _counted(run, BALANCER, tmp_path)


def _counted(run: Run, obj: Path, folder: Path, *options: str) -> tuple[Path, Path]:
    counting, counters = folder / f"counting.{obj.name}", folder / f"{obj.stem}.json"
    run("cover", "run", obj, "--hex", HEX, "--object", counting, "-o", counters, "-q", *options)
    return counting, counters


def report(run: Run, counted: tuple[Path, ...], *args: str | Path, status: int = 0) -> Any:
    """Run the command."""
    return run("cover", "report", *counted, *args, status=status)


def test_table(run: Run, counted: tuple[Path, Path]) -> None:
    """The table has a row a file, and a total; nothing is coloured."""
    rows = report(run, counted).stdout.splitlines()
    assert rows[0].split()[:2] == ["FILE", "LINES"]
    assert [row.split()[0] for row in rows[1:]] == ["src/xdp_balancer.c", "total"]
    assert "\x1b" not in "".join(rows)


def test_lines(run: Run, counted: tuple[Path, Path]) -> None:
    """--lines shows the source with counts; the program's first line ran once."""
    shown = report(run, counted, "--lines").stdout.splitlines()
    assert ["1", "225", "void *data = DATA(ctx), *end = DATA_END(ctx);"] in [
        [part.strip() for part in row.split(None, 2)] for row in shown
    ]


def test_functions(run: Run, counted: tuple[Path, Path]) -> None:
    """--functions has a row for each, with its calls."""
    rows = [row.split() for row in report(run, counted, "--functions").stdout.splitlines()]
    assert ["balancer", "xdp", "src/xdp_balancer.c:225", "1"] in [row[:4] for row in rows]


def test_counters_add_up(run: Run, counted: tuple[Path, Path]) -> None:
    """Counters that are given twice count twice."""
    obj, counters = counted
    once = json.loads(report(run, counted, "--format", "json").stdout)
    twice = json.loads(report(run, (obj, counters, counters), "--format", "json").stdout)
    assert [2 * one["calls"] for one in once["functions"]] == [
        one["calls"] for one in twice["functions"]
    ]


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("out.html", "<!DOCTYPE html>"),
        ("out.info", "TN:"),
        ("out.xml", "<?xml"),
        ("out.json", "{"),
    ],
)
def test_name_tells_the_format(
    run: Run, counted: tuple[Path, Path], tmp_path: Path, name: str, start: str
) -> None:
    """Without --format the name of the output decides; the same goes to stdout with it."""
    report(run, counted, "-o", tmp_path / name)
    assert (tmp_path / name).read_text().startswith(start)


def test_source_root(run: Run, counted: tuple[Path, Path], tmp_path: Path) -> None:
    """With the folder of its sources, all lines of a file are shown."""
    report(run, counted, "--source-root", SOURCES, "-o", tmp_path / "out.html")
    assert "A small layer-4 balancer" in (tmp_path / "out.html").read_text()
    report(run, counted, "-o", tmp_path / "out.html")
    assert "A small layer-4 balancer" not in (tmp_path / "out.html").read_text()


def test_write_sources(run: Run, counted: tuple[Path, Path], tmp_path: Path) -> None:
    """--write-sources writes what is known of the source, and the tracefile names it."""
    report(run, counted, "--write-sources", tmp_path / "src", "-o", tmp_path / "out.info")
    written = tmp_path.resolve() / "src/src/xdp_balancer.c"
    assert f"SF:{written}\n" in (tmp_path / "out.info").read_text()
    assert "DATA_END(ctx)" in written.read_text().splitlines()[224]


def test_cobertura_names_the_object(run: Run, counted: tuple[Path, Path]) -> None:
    """The package of the XML is the object."""
    root = ElementTree.fromstring(report(run, counted, "--format", "cobertura").stdout)
    assert root.find("./packages/package[@name]") is not None


def test_fail_under(run: Run, counted: tuple[Path, Path]) -> None:
    """Less than asked for fails, after the report; as much does not."""
    result = report(run, counted, "--fail-under", "99.5", status=1)
    assert "total" in result.stdout
    assert "--fail-under wants 99.5 %" in result.stderr
    report(run, counted, "--fail-under", "1")


def test_object_without_lines(run: Run, tmp_path: Path) -> None:
    """Without line info functions are shown, and blocks are judged."""
    counted = _counted(run, NO_LINES, tmp_path)
    result = report(run, counted, "--lines", "--fail-under", "100", status=1)
    assert "branches, called 1 times:" in result.stdout
    assert "of the blocks ran" in result.stderr
    assert "no line info" in report(run, counted, "--format", "lcov", status=1).stderr


def test_counters_of_another_object(run: Run, counted: tuple[Path, Path], tmp_path: Path) -> None:
    """Counters of another object are refused, and the file is named."""
    _, other = _counted(run, NO_LINES, tmp_path)
    result = report(run, (counted[0], other), status=1)
    assert f"bpfpatch: {other}: the file has counters of object" in result.stderr


def test_object_that_does_not_count(run: Run, counted: tuple[Path, Path]) -> None:
    """An object that was not instrumented is refused, with how to."""
    result = report(run, (BALANCER, counted[1]), status=1)
    assert "it is not instrumented" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "which counters?"),
        (["c.json", "-o", "out.bin"], "what to write to out.bin?"),
        (["c.json", "--lines", "--format", "html"], "for --format terminal"),
        (["c.json", "--fail-under", "101"], "101"),
    ],
)
def test_wrong_arguments(
    run: Run, counted: tuple[Path, Path], args: list[str], message: str
) -> None:
    """Arguments that make no sense are said to be so."""
    assert message in report(run, counted[:1], *args, status=2).stderr


def test_missing_root(run: Run, counted: tuple[Path, Path]) -> None:
    """A folder of sources that is not there is an error, not an empty one."""
    assert "is no folder" in report(run, counted, "--source-root", "/nosuch", status=1).stderr
