"""``bpfpatch cover``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.coverage import cover_map
from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import FIXTURES, fixture_path

PCAP = FIXTURES / "packets.pcap"


@pytest.fixture
def counting(run: Any, demo: Path) -> Path:
    """The balancer, instrumented."""
    out = demo.with_name("lb.cover.o")
    run("cover", demo, "-o", out, "-q")
    return out


def test_an_object_that_counts(run: Any, demo: Path) -> None:
    """The new object is written, and what it counts is said."""
    out = demo.with_name("out.o")
    told = run("cover", demo, "-o", out, "--edges", "--count", "plain").stderr
    cover = cover_map(ElfObject.read(out))
    assert cover.counting == "plain"
    assert all(one.of_edges for one in cover.functions)
    assert f"{cover.n_counters} counters in .data.cover for" in told


def test_its_long_name(run: Any, demo: Path, counting: Path) -> None:
    """``cover instrument`` is what ``cover`` with an object does."""
    out = demo.with_name("long.o")
    run("cover", "instrument", "-q", "-o", out, demo)
    assert out.read_bytes() == counting.read_bytes()


def test_options_may_come_first(run: Any, demo: Path, counting: Path) -> None:
    """The object need not be the first argument."""
    out = demo.with_name("first.o")
    run("cover", "-q", "-o", out, demo)
    assert out.read_bytes() == counting.read_bytes()


def test_help_lists_the_commands(run: Any) -> None:
    """Without arguments, or asked to, it says what there is."""
    shown = run("cover", "--help").output
    assert all(f"\n  {name} " in shown for name in ("instrument", "run", "report"))


def test_twice_is_refused(run: Any, counting: Path) -> None:
    """An object that counts already is named, and nothing is written."""
    out = counting.with_name("twice.o")
    told = run("cover", counting, "-o", out, status=1).stderr
    assert told == (
        f"bpfpatch: {counting}: the object is instrumented already: it has a section "
        ".bpfpatch.cover\n"
    )
    assert not out.exists()


def test_no_symbol_table(run: Any, tmp_path: Path) -> None:
    """An object that was stripped too much is refused, with the way out."""
    stripped = fixture_path("xdp_parse.clang-19.v3.el.g.strip-all.o")
    told = run("cover", stripped, "-o", tmp_path / "out.o", status=1).stderr
    assert "has no symbol table" in told
    assert "strip it with -g" in told


def test_no_output(run: Any, demo: Path) -> None:
    """Where to is not guessed."""
    assert "Missing option '-o'" in run("cover", demo, status=2).stderr
    assert "not nothing" in run("cover", demo, "-o", "", status=2).stderr


def test_run_and_report(run: Any, counting: Path) -> None:
    """What a run saves is what a report reads."""
    saved = counting.with_name("counters.json")
    told = run("cover", "run", counting, "--pcap", PCAP, "-o", saved).stderr
    assert "39 runs" in told
    shown = run("cover", "report", counting, saved, "--format", "json").stdout
    assert json.loads(shown)


def test_run_instruments_and_keeps(run: Any, demo: Path) -> None:
    """An object that does not count is made to, and kept where that is wanted."""
    saved, kept = demo.with_name("c.json"), demo.with_name("kept.o")
    run("cover", "run", demo, "--hex", "00" * 64, "-o", saved, "--object", kept, "-q")
    cover = cover_map(ElfObject.read(kept))
    assert json.loads(saved.read_text())["identity"] == f"{cover.identity:016x}"


def test_run_of_one_of_several(run: Any, tmp_path: Path) -> None:
    """Which program to run has to be said."""
    several = fixture_path("xdp_parse.clang-19.v3.el.g.o")
    out = tmp_path / "out.json"
    told = run("cover", "run", several, "-o", out, status=1).stderr
    assert "choose one with --prog: " in told
    assert not out.exists()
    run("cover", "run", several, "--prog", "parse_xdp", "--hex", "00" * 64, "-o", out)


def test_counters_of_another_object(run: Any, demo: Path, counting: Path) -> None:
    """A report of an object with another one's counters is refused."""
    saved, other = demo.with_name("c.json"), demo.with_name("other.o")
    run("cover", demo, "-o", other, "--no-edges", "-q")
    run("cover", "run", other, "--hex", "00" * 64, "-o", saved, "-q")
    told = run("cover", "report", counting, saved, status=1).stderr
    assert f"bpfpatch: {saved}: the file has counters of object" in told


def test_a_report_of_what_does_not_count(run: Any, demo: Path, counting: Path) -> None:
    """The error says how to make an object that counts."""
    saved = counting.with_name("c.json")
    run("cover", "run", counting, "--hex", "00" * 64, "-o", saved, "-q")
    told = run("cover", "report", demo, saved, status=1).stderr
    assert "it is not instrumented" in told
    assert "bpfpatch cover OBJ -o OUT" in told


def test_a_dump_of_the_wrong_size(run: Any, counting: Path) -> None:
    """Another map than that of the counters is told by its size."""
    dump = counting.with_name("dump.json")
    dump.write_text(json.dumps([{"key": ["0x00"] * 4, "value": ["0x00"] * 12}]))
    told = run("cover", "report", counting, dump, status=1).stderr
    assert "has 12 bytes, and this object's" in told
