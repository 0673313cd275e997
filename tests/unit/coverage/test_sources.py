"""Where source text comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.sources import Sources, write_known_lines
from support.models.countedcode import TEXT, A, B, counted

WHOLE = "\n".join(TEXT.get(line, f"// {line}").strip() for line in range(1, 15)) + "\n"


def named(path: str) -> Coverage:
    """The example with another path for a.c."""
    coverage = counted()
    file = replace(coverage.files[A], path=path)
    return replace(coverage, files={path: file})


def put(place: Path, text: str = WHOLE) -> Path:
    """Write a file, and the folders that it is in."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place.resolve()


def test_without_roots_only_what_the_object_has(tmp_path: Path, monkeypatch: object) -> None:
    """No file is read unless a folder is given, be it where the object says."""
    place = put(tmp_path / "a.c")
    text = Sources.find(named(str(place))).texts[str(place)]
    assert (text.found, text.lines) == (None, TEXT)


@pytest.mark.parametrize("place", ["src/a.c", "a.c"])
def test_found_by_less_and_less_of_its_path(tmp_path: Path, place: str) -> None:
    """A file is found by the end of its path, and all of its lines are known then."""
    found = put(tmp_path / place)
    text = Sources.find(counted(), [tmp_path]).texts[A]
    assert text.found == found
    assert len(text.lines) == 14
    assert text.lines[1] == "// 1"


def test_longest_path_wins(tmp_path: Path) -> None:
    """Of two files, the one that more of the path leads to is taken."""
    put(tmp_path / "a.c")
    found = put(tmp_path / "src/a.c")
    assert Sources.find(counted(), [tmp_path]).texts[A].found == found


def test_other_version_is_not_used(tmp_path: Path) -> None:
    """A file with other lines than the object has is not shown, and it is said why."""
    put(tmp_path / "a.c", WHOLE.replace("a = 2;", "a = 3;"))
    sources = Sources.find(counted(), [tmp_path])
    assert (sources.texts[A].found, sources.texts[A].lines) == (None, TEXT)
    assert [text for text in sources.notices if "line 8 is another" in text]


def test_too_short_file_is_not_used(tmp_path: Path) -> None:
    """A file that ends before the last line with code is another version."""
    put(tmp_path / "b.h", "one line\n")
    sources = Sources.find(counted(), [tmp_path])
    assert sources.texts[B].found is None
    assert "it has 1 lines, and the code comes from line 2, too" in sources.notices[0]


@pytest.mark.parametrize("path", ["../../a.c", "/a.c", "../root/../a.c"])
def test_no_path_leads_out_of_a_root(tmp_path: Path, path: str) -> None:
    """What an object names is looked for below the folder, wherever its path leads."""
    put(tmp_path / "a.c")
    (tmp_path / "root").mkdir()
    assert Sources.find(named(path), [tmp_path / "root"]).texts[path].found is None


def test_no_link_leads_out_of_a_root(tmp_path: Path) -> None:
    """A symbolic link to somewhere else is not followed."""
    outside = put(tmp_path / "a.c")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.c").symlink_to(outside)
    assert Sources.find(counted(), [tmp_path / "root"]).texts[A].found is None


@pytest.mark.parametrize("path", ["", "a\x00.c", "x" * 5000, "/", ".."])
def test_strange_paths(tmp_path: Path, path: str) -> None:
    """A path that no file can have is one that is not found."""
    assert Sources.find(named(path), [tmp_path]).texts[path].found is None


def test_known_lines_are_written_at_their_places(tmp_path: Path) -> None:
    """A file that is written has the known lines at their numbers, and empty ones between."""
    sources = write_known_lines(counted(), Sources.find(counted()), tmp_path)
    found = sources.texts[A].found
    assert found == tmp_path.resolve() / "src/a.c"
    lines = found.read_text().split("\n")
    assert (lines[2], lines[6], lines[7]) == (TEXT[3], "", TEXT[8])
    assert len(lines) == 14


def test_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Two paths that come down to one below a folder get a file each."""
    coverage = counted()
    other = replace(coverage.files[A], path="../src/a.c")
    both = replace(coverage, files={A: coverage.files[A], other.path: other})
    sources = write_known_lines(both, Sources.find(both), tmp_path)
    assert sources.texts[A].found != sources.texts[other.path].found


def test_found_files_are_not_written(tmp_path: Path) -> None:
    """What is there already is used as it is."""
    found = put(tmp_path / "src/a.c")
    sources = Sources.find(counted(), [tmp_path / "src"])
    written = write_known_lines(counted(), sources, tmp_path / "out")
    assert written.texts[A].found == found
    assert not (tmp_path / "out/src/a.c").exists()
