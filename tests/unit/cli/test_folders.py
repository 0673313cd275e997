"""Folders of objects: ``apply FOLDER -o FOLDER`` and ``verify FOLDER FOLDER``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import fixture_path

NAMES = ("xdp_count.clang-19.v3.el.g.o", "globals.clang-19.v3.el.g.o")
STRIPPED = "xdp_parse.clang-19.v3.el.g.strip-all.o"


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A folder with two objects, one of them further down, and two files that are none."""
    folder = tmp_path / "objects"
    (folder / "more").mkdir(parents=True)
    shutil.copy(fixture_path(NAMES[0]), folder / "count")
    shutil.copy(fixture_path(NAMES[1]), folder / "more" / "globals.o")
    (folder / "README.o").write_text("no object, whatever its name says")
    (folder / "empty").touch()
    return folder


def test_apply_rewrites_each_object(run: Any, objects: Path, tmp_path: Path) -> None:
    """Each object has a line, and is written under its own name; other files are named."""
    out = tmp_path / "out"
    done = run("apply", "-p", "sprinkle", objects, "-o", out)
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["count", "more/globals.o", str(objects)]
    assert "README.o, empty" in lines[-1]
    assert sorted(str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()) == [
        "count",
        "more/globals.o",
    ]
    before, after = (len(ElfObject.read(one / "count").code) for one in (objects, out))
    assert after > before


def test_apply_says_the_same_in_json(run_json: Any, objects: Path, tmp_path: Path) -> None:
    """JSON has what `apply` of each object has."""
    found = run_json("apply", "-p", "sprinkle", objects, "-o", tmp_path / "out")
    assert [one["file"] for one in found["objects"]] == ["count", "more/globals.o"]
    assert all(one["insns_after"] > one["insns_before"] for one in found["objects"])
    assert found["skipped"] == ["README.o", "empty"]
    assert not (tmp_path / "other").exists()
    run_json("apply", "-p", "sprinkle", objects)
    assert not (tmp_path / "other").exists()


def test_one_that_fails_stops_none(run: Any, objects: Path, tmp_path: Path) -> None:
    """A broken object is named and not written, the others are; exit status 1."""
    shutil.copy(fixture_path(STRIPPED), objects / "a.o")
    broken = (objects / "count").read_bytes()[:2000]
    (objects / "b.o").write_bytes(broken)
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.o").write_bytes(b"as it was")
    done = run("apply", "-p", "dce", objects, "-o", out, status=1)
    assert "a.o: failed: the object was stripped" in done.stderr
    assert "b.o: failed: " in done.stderr
    assert "2 of 4 objects failed" in done.stderr
    assert (out / "b.o").read_bytes() == b"as it was"
    assert {one.name for one in out.rglob("*.o")} == {"b.o", "globals.o"}
    assert not list(out.rglob(".bpfpatch-*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "-"], "a folder is rewritten into a folder"),
        (["-o", "{folder}/count"], "a folder is rewritten into a folder"),
        (["-o", "{folder}/more/out"], "is within"),
        (["--diff"], "--diff is of one object"),
        (["-o", "{folder}x", "--format", "raw"], "--format is of one file"),
    ],
)
def test_what_makes_no_sense_of_a_folder(
    run: Any, objects: Path, options: list[str], message: str
) -> None:
    """Options for one object are wrong arguments."""
    given = [one.format(folder=objects) for one in options]
    assert message in run("apply", objects, *given, status=2).stderr


def test_an_empty_folder(run: Any, tmp_path: Path) -> None:
    """A folder without objects is an error."""
    (tmp_path / "none").mkdir()
    done = run("apply", tmp_path / "none", "-o", tmp_path / "out", status=1)
    assert "there is no BPF object in this folder" in done.stderr


def verify(run: Any, a: Path, b: Path, *options: str, status: int = 0) -> Any:
    """Compare two folders, for a short time."""
    return run("verify", "--runs", "200", "--seconds", "1", *options, a, b, status=status)


def test_verify_compares_objects_of_one_name(run: Any, objects: Path, tmp_path: Path) -> None:
    """Each object has one line, and what is only in the second folder is named."""
    out = tmp_path / "out"
    run("apply", "-p", "sprinkle", objects, "-o", out)
    shutil.copy(out / "count", out / "another")
    done = verify(run, objects, out)
    lines = done.stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["count: same", "more/globals.o: same"]
    assert "another" in done.stderr


def test_verify_tells_what_differs(run: Any, objects: Path, tmp_path: Path) -> None:
    """A difference is shown below the object's line; one that got lost differs, too."""
    out = tmp_path / "out"
    run("apply", "-p", "sprinkle", objects, "-o", out)
    other = fixture_path("xdp_count.clang-14.v1.eb.g.o")
    shutil.copy(other, out / "count")
    (out / "more" / "globals.o").unlink()
    text = verify(run, objects, out, status=1).stdout
    assert "count: DIFFERENT (1 program; of these count_proto;" in text
    assert "  count_proto: DIFFERENT" in text
    assert "more/globals.o: LOST" in text
    brief = verify(run, objects, out, "-q", status=1).stdout
    assert len(brief.splitlines()) == 2
    found = json.loads(verify(run, objects, out, "--json", status=1).stdout)
    words = {one["file"]: one["verdict"] for one in found["objects"]}
    assert words == {"count": "different", "more/globals.o": "lost"}


def test_verify_tells_what_it_could_not_check(run: Any, objects: Path, tmp_path: Path) -> None:
    """An object that cannot be read is named, and the status is 2; a difference goes before."""
    out = tmp_path / "out"
    shutil.copytree(objects, out)
    (out / "more" / "globals.o").write_bytes((out / "count").read_bytes()[:2000])
    with (out / "more" / "globals.o").open("ab") as file:
        file.write(bytes(10))
    done = verify(run, objects, out, status=2)
    assert "more/globals.o: not checked: " in done.stdout
    verify(run, objects, out, "--allow-unchecked")
    (out / "count").unlink()
    verify(run, objects, out, status=1)


def test_a_folder_and_a_file(run: Any, objects: Path) -> None:
    """Both are folders, or none; options of one object are refused."""
    assert "two folders, or two files" in verify(run, objects, objects / "count", status=2).stderr
    done = verify(run, objects, objects, "--prog", "x", status=2)
    assert "--prog is of one object" in done.stderr
