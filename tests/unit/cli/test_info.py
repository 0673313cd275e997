"""``bpfpatch info``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_path


def test_sections_agree_with_pyelftools(run_json: Any, demo: Path) -> None:
    """Names and sizes of sections are what pyelftools reads."""
    with demo.open("rb") as file:
        theirs = [(one.name, one["sh_size"]) for one in ELFFile(file).iter_sections()]
    ours = run_json("info", demo)["sections"]
    assert [(one["name"], one["bytes"]) for one in ours] == theirs


def test_programs_and_maps(run_json: Any, demo: Path) -> None:
    """The balancer has one XDP program, six subprograms besides, and three maps."""
    value = run_json("info", demo)
    assert [(one["name"], one["type"]) for one in value["programs"]] == [("balancer", "xdp")]
    assert len(value["subprograms"]) == 7
    assert {one["name"] for one in value["maps"]} == {"flows", "blocked", "verdicts"}
    assert (value["license"], value["cpu"], value["byteorder"]) == ("GPL", "v3", "little")
    assert value["valid"] is True


def test_slots_agree_with_section_sizes(run_json: Any, demo: Path) -> None:
    """There are as many slots as the executable sections have room for."""
    value = run_json("info", demo)
    n_bytes = sum(one["bytes"] for one in value["sections"] if one["executable"])
    assert value["slots"] == n_bytes // 8
    assert sum(one["end"] - one["start"] for one in value["subprograms"]) == value["slots"]


def test_text_has_the_same(run: Any, demo: Path) -> None:
    """The text names licence, programs, maps and sections."""
    text = run("info", demo).stdout
    for word in ("licence: GPL", "needs cpu: v3", "balancer", "flows", ".rel.text", "line_info"):
        assert word in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "cpu", "byteorder"),
    [
        ("xdp_parse.clang-14.v1.eb.o", "v1", "big"),
        ("cpu_v4.clang-19.v4.el.o", "v4", "little"),
        ("asm_may_goto.clang-19.v4.el.o", "newer than v4", "little"),
    ],
)
def test_cpu_and_byte_order(run_json: Any, name: str, cpu: str, byteorder: str) -> None:
    """The lowest cpu version and the byte order are those that the object was built for."""
    value = run_json("info", fixture_path(name))
    assert (value["cpu"], value["byteorder"]) == (cpu, byteorder)


def test_cpu_of_what_stands_behind_a_load(run_json: Any, tmp_path: Path) -> None:
    """The one newer instruction counts also where an ld_imm64 is right in front of it."""
    obj = ElfObject.parse(fixture_path("xdp_parse.clang-14.v1.eb.o").read_bytes())
    patches = PatchList(obj.code)
    patches.insert_before(0, Body.asm("r1 = 5 ll; r1 = (s8)r1"))
    path = tmp_path / "newer.o"
    path.write_bytes(obj.with_code(patches.linearize()).to_bytes())
    assert run_json("info", path)["cpu"] == "v4"


def test_stdin(run: Any, demo: Path) -> None:
    """With - the object comes from stdin."""
    assert run("info", "-", stdin=demo.read_bytes()).stdout.startswith("<stdin>: ")


def test_broken_object_fails(run: Any, broken: Path) -> None:
    """A broken object gives one line and exit 1."""
    result = run("info", broken, status=1)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)


def test_assembly_is_no_object(run: Any, tmp_path: Path) -> None:
    """Only an object has something to say."""
    path = tmp_path / "x.s"
    path.write_text("exit\n")
    result = run("info", path, status=1)
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
    assert "x.s" in result.stderr


def test_what_a_kernel_lacks(run: Any, run_json: Any) -> None:
    """With --kernel, what of an object that version lacks is named, with what brought it."""
    path = fixture_path("ringbuf.clang-19.v3.el.g.o")
    missing = run_json("info", path, "--kernel", "5.4")["missing"]
    assert {(row["kind"], row["name"], row["since"]) for row in missing} >= {
        ("map type", "ringbuf", "5.8"),
        ("helper", "ringbuf_output", "5.8"),
    }
    assert run_json("info", path, "--kernel", "6.18")["missing"] == []
    assert "ringbuf_output" in run("info", path, "--kernel", "5.4").stdout
    assert "looks like 6.18" in run("info", path, "--kernel", "new", status=1).stderr


def test_what_needs_a_level(run_json: Any) -> None:
    """Without, all that not every kernel has is listed; instructions with their cpu version."""
    needs = run_json("info", fixture_path("cpu_v4.clang-19.v4.el.o"))["needs"]
    levels = {row["name"]: (row["cpu"], row["since"]) for row in needs if row["kind"] == "insn"}
    assert ("v4", "6.6") in levels.values()
    assert {row["since"] for row in needs if row["kind"] == "program type"} <= {
        "4.8",
        "4.1",
        "3.19",
    }
