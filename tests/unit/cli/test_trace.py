"""bpfpatch trace."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.passes.trace import MAP_NAME, trace_map
from support.cases.schemas import check
from support.inputs.bpfobjects import fixture_path
from support.machine import tools

LOOP = fixture_path("asm_back_edge.clang-19.v4.el.o")
BALANCER = fixture_path("xdp_balancer.clang-19.v3.el.g.o")


@pytest.mark.kernel
def test_traces_several_places(run: Any, tmp_path: Path) -> None:
    """Each place is traced, and named with what is told there."""
    out = tmp_path / "lb.traced.o"
    done = run(
        *("trace", BALANCER, "--at", "parse_ip4", "--at", "xdp_balancer.c:117"),
        *("--regs", "r1, r0", "--message", "hello, you", "-o", out),
        status=1,
    )
    assert "r0 does not certainly have a value here; those that do are: r1" in done.stderr
    assert not out.exists()
    done = run("trace", BALANCER, "--at", "parse_ip4", "--at", "#4", "--regs", "r1", "-o", out)
    assert done.stderr.splitlines()[:2] == [
        f"{BALANCER}: xdp_balancer.c:139 (insn 0 in parse_ip4): r1",
        f"{BALANCER}: xdp_balancer.c:141 (insn 4 in parse_ip4): r1",
    ]
    places = trace_map(ElfObject.read(str(out))).places.values()
    assert [(place.slot, place.to) for place in places] == [(0, "pipe"), (4, "pipe")]


def test_a_message_may_have_commas(run: Any, tmp_path: Path) -> None:
    """What has no form in a pipeline's text is fine on the command line."""
    out = tmp_path / "out.o"
    run("trace", LOOP, "--at", "drain", "--message", "{a, b}", "--ring", "-q", "-o", out)
    (place,) = trace_map(ElfObject.read(str(out))).places.values()
    assert (place.message, place.to) == ("{a, b}", "ring")


@pytest.mark.kernel
def test_a_second_trace_tells_its_own_places(run: Any, tmp_path: Path) -> None:
    """What was traced before is not told again."""
    once = tmp_path / "once.o"
    run("trace", LOOP, "--at", "drain", "-o", once)
    done = run("trace", once, "--at", "drain_wide", "--ring", "-o", once)
    (line,) = done.stderr.splitlines()
    assert "in drain_wide): that it is reached" in line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--at", "drain"), "Missing option '-o'"),
        (("-o", "x.o"), "Missing option '--at'"),
        (("--at", "drain", "--regs", "r12", "-o", "x.o"), "is no register: give r0 to r10"),
        (("--at", "drain", "--size", "4096", "-o", "x.o"), "--size is of the ring buffer"),
        (("--at", "drain", "-o", ""), "-o takes the name of a file"),
    ],
)
def test_wrong_arguments(
    run: Any, args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong arguments exit with 2, and write nothing."""
    monkeypatch.chdir(tmp_path)
    assert message in run("trace", LOOP, *args, status=2).stderr
    assert not list(tmp_path.iterdir())


def test_no_such_place(run: Any, tmp_path: Path) -> None:
    """A place that is not there exits with 1, and says what there is."""
    done = run("trace", LOOP, "--at", "nowhere", "-o", tmp_path / "x.o", status=1)
    assert "there are: drain, drain_wide, back_edge" in done.stderr


def test_help_shows_both_forms(run: Any) -> None:
    """One help has what there is to know of tracing and of reading."""
    text = run("trace", "--help").stdout
    assert "trace OBJ --at PLACE" in text
    assert "trace read TRACED_OBJ --pin PATH" in text
    assert "--follow" in text
    assert "--id 17 --json" in run("trace", "read", "--help").stdout


def test_reading_what_was_not_traced(run: Any, tmp_path: Path) -> None:
    """An object without records, and one that prints, cannot be read."""
    assert "nothing in it is traced" in run("trace", "read", LOOP, "--id", "1", status=1).stderr
    out = tmp_path / "printing.o"
    run("trace", LOOP, "--at", "drain", "-q", "-o", out)
    assert "see /sys/kernel/tracing" in run("trace", "read", out, "--id", "1", status=1).stderr
    run("trace", LOOP, "--at", "drain", "--ring", "-q", "-o", out)
    assert "Give one of --pin, --id and" in run("trace", "read", out, status=2).stderr


@pytest.fixture
def loaded(run: Any, tmp_path: Path) -> Any:
    """A traced object's file, and the same in the kernel."""
    tools.need_bpf()
    path = tmp_path / "traced.o"
    run("trace", LOOP, "--at", "drain+1", "--regs", "r1", "--ring", "-q", "-o", path)
    with kernel.open_object(str(path)) as opened:
        opened.programs["back_edge"].test_run(bytes(64 + 2))
        yield path, opened


@pytest.mark.kernel
def test_reads_records(run: Any, loaded: Any) -> None:
    """What was sent is printed once, with its place and the registers."""
    path, opened = loaded
    where = ("--id", str(opened.maps[MAP_NAME].info().id))
    lines = run("trace", "read", path, *where).stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines] == ["drain#1 r1=0x1", "drain#1 r1=0x0"]
    assert run("trace", "read", path, *where).stdout == ""


@pytest.mark.kernel
def test_reads_records_as_json(run: Any, loaded: Any) -> None:
    """A record a line, from the map of a program, as many as are asked for."""
    path, opened = loaded
    where = ("--prog-id", str(opened.programs["back_edge"].info().id))
    for wanted in (1, 0):
        (line,) = run("trace", "read", path, *where, "--json", "-f", "-n", "1").stdout.splitlines()
        record = json.loads(line)
        check("trace-read", record)
        assert record.pop("time_ns") > 0
        assert record == {
            "function": "drain",
            "file": "",
            "line": 0,
            "slot": 1,
            "message": "",
            "registers": {"r1": wanted},
        }


@pytest.mark.kernel
def test_records_of_another_object(run: Any, loaded: Any, tmp_path: Path) -> None:
    """Records that do not belong to the object are no guesswork."""
    _, opened = loaded
    other = tmp_path / "other.o"
    run("trace", LOOP, "--at", "drain", "--regs", "r1", "--ring", "-q", "-o", other)
    where = ("--id", str(opened.maps[MAP_NAME].info().id))
    message = run("trace", "read", other, *where, status=1).stderr
    assert "is none of this object's; give the very object that is loaded" in message


@pytest.mark.kernel
def test_a_program_without_records(run: Any, loaded: Any) -> None:
    """A program that has no ring buffer of ours says so."""
    path, _ = loaded
    with kernel.open_object(str(LOOP)) as plain:
        where = ("--prog-id", str(plain.programs["back_edge"].info().id))
        assert "has no map bpfpatch_trace" in run("trace", "read", path, *where, status=1).stderr


def test_missing_helpers_are_told(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this kernel would refuse the helper, a note says so; the object is written."""
    monkeypatch.setattr(kernel, "available", lambda: None)
    monkeypatch.setattr(kernel, "has_prog_type", lambda _: True)
    monkeypatch.setattr(kernel, "has_helper", lambda *_: False)
    out = tmp_path / "out.o"
    done = run("trace", LOOP, "--at", "back_edge", "-o", out)
    assert "note: this kernel lets no xdp program call bpf_trace_printk()" in done.stderr
    assert out.exists()


def test_table_of_commands_has_it() -> None:
    """The command is a group, whose first form needs no name."""
    command = importlib.import_module("bpfpatch.cli.trace").command
    assert set(command.commands) == {"put", "read"}
