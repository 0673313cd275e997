"""``bpfpatch diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile


@pytest.fixture
def sprinkled(run: Any, demo: Path, tmp_path: Path) -> Path:
    """The balancer with a jump to nowhere before each tenth instruction."""
    out = tmp_path / "sprinkled.o"
    run("apply", "-q", "-p", "sprinkle{every=10}", demo, "-o", out)
    return out


def test_equal_objects_exit_0(run: Any, demo: Path) -> None:
    """An object and itself: no output, exit 0."""
    assert run("diff", demo, demo).output == ""


def test_different_objects_exit_1(run: Any, demo: Path, sprinkled: Path) -> None:
    """Only what was put in is a change, aligned by content."""
    out = run("diff", demo, sprinkled, status=1).stdout
    assert out.startswith(f"--- {demo}\n+++ {sprinkled}\n")
    changed = [line for line in out.splitlines()[2:] if line[0] in "+-"]
    assert len(changed) == 40  # one before each tenth of 391
    assert all(line.endswith("goto +0x0") for line in changed)
    assert "xdp_balancer.c:" in out


def test_nops_undo_sprinkle(run: Any, demo: Path, sprinkled: Path) -> None:
    """What sprinkle put in, nops takes out: no difference is left."""
    run("apply", "-q", "-p", "nops", sprinkled, "-o", sprinkled)
    run("diff", demo, sprinkled)


def test_brief(run: Any, demo: Path, sprinkled: Path) -> None:
    """With -q one line says how much differs."""
    (line,) = run("diff", "-q", demo, sprinkled, status=1).stdout.splitlines()
    assert "40 instructions added, 0 removed, 0 changed" in line


def test_all_shows_equal_functions(run: Any, demo: Path) -> None:
    """With --all everything is shown, also where nothing changed."""
    assert "parse_ip4 in .text: the same" in run("diff", "--all", demo, demo).stdout


def test_json(run_json: Any, demo: Path, sprinkled: Path) -> None:
    """The JSON diff counts, and names every function."""
    value = run_json("diff", demo, sprinkled, status=1)
    assert (value["equal"], value["added"], value["removed"]) == (False, 40, 0)
    assert sum(function["added"] for function in value["functions"]) == 40


def test_html(run: Any, demo: Path, sprinkled: Path, tmp_path: Path) -> None:
    """With --html a page is written, too."""
    run("diff", demo, sprinkled, "--html", tmp_path / "x.html", status=1)
    assert "</html>" in (tmp_path / "x.html").read_text()


def test_one_side_from_stdin(run: Any, demo: Path) -> None:
    """One of the two may come from stdin."""
    run("diff", "-", demo, stdin=demo.read_bytes())


def test_assembly_against_an_object(run: Any, demo: Path, tmp_path: Path) -> None:
    """Assembly and an object can be compared."""
    other = tmp_path / "other.s"
    other.write_text("balancer: r0 = 2\nexit\n")
    assert "balancer" in run("diff", demo, other, status=1).stdout


@pytest.mark.parametrize("args", [["-", "-"], ["only-one.o"], ["a", "b", "c"]])
def test_wrong_arguments_exit_2(run: Any, args: list[str]) -> None:
    """Wrong arguments give the usage."""
    assert "Usage" in run("diff", *args, status=2).stderr


def test_trouble_exits_2(run: Any, demo: Path, broken: Path, tmp_path: Path) -> None:
    """What cannot be read is trouble, as in diff(1)."""
    for bad in (broken, tmp_path / "missing"):
        (line,) = run("diff", demo, bad, status=2).stderr.splitlines()
        assert line.startswith(f"bpfpatch: {bad}: ")


def test_broken_symbol_name_is_trouble(run: Any, demo: Path, tmp_path: Path) -> None:
    """A symbol whose name lies outside of its string table is trouble, and the file is named."""
    bad = tmp_path / "bad.o"
    data = bytearray(demo.read_bytes())
    with demo.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        symbols = [(index, one.name) for index, one in enumerate(table.iter_symbols())]
    (index,) = (index for index, name in symbols if name == "closed_port")
    place = table["sh_offset"] + 24 * index
    data[place : place + 4] = b"\xff\xff\xff\x7f"
    bad.write_bytes(data)
    (line,) = run("diff", demo, bad, status=2).stderr.splitlines()
    assert line.startswith(f"bpfpatch: {bad}: at byte 0x")


def test_page_that_cannot_be_written_is_trouble(run: Any, demo: Path, tmp_path: Path) -> None:
    """A page in a folder that does not exist is trouble."""
    run("diff", demo, demo, "--html", tmp_path / "no" / "x.html", status=2)
