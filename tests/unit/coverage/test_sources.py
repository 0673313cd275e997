"""Where source text comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.writesources import write_known_lines
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


def write(coverage: Coverage, folder: Path, *, force: bool = False) -> Sources:
    """Write what is known of an object's files."""
    return write_known_lines(coverage, Sources.find(coverage), folder, force=force)


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    """A file that was edited stays, and a notice says so; force replaces it."""
    edited = put(tmp_path / "src/a.c", "mine\n")
    kept = write(counted(), tmp_path)
    assert edited.read_text() == "mine\n"
    assert kept.texts[A].found is None
    assert [one for one in kept.notices if str(edited) in one and "--force" in one]
    forced = write(counted(), tmp_path, force=True)
    assert forced.texts[A].found == edited
    assert "mine" not in edited.read_text()


def test_writing_twice_is_no_conflict(tmp_path: Path) -> None:
    """A file that has the same content already is the one that would be written."""
    write(counted(), tmp_path)
    again = write(counted(), tmp_path)
    assert again.texts[A].found == tmp_path.resolve() / "src/a.c"
    assert not again.notices


@pytest.mark.parametrize("force", [False, True])
def test_links_are_not_followed(tmp_path: Path, force: bool) -> None:
    """Neither a folder nor a file that is a link leads a write out of the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "by folder").mkdir()
    (tmp_path / "by folder" / "src").symlink_to(outside)
    with pytest.raises(OSError, match="src"):
        write(counted(), tmp_path / "by folder", force=force)
    target = put(outside / "target", "theirs\n")
    (tmp_path / "by file" / "src").mkdir(parents=True)
    (tmp_path / "by file" / "src" / "a.c").symlink_to(target)
    write(counted(), tmp_path / "by file", force=force)
    assert target.read_text() == "theirs\n"
    assert list(outside.iterdir()) == [target]


@pytest.mark.parametrize("name", ["Makefile", "GNUmakefile", ".bashrc", "conftest.py", "run.sh"])
def test_only_source_files_have_their_names(tmp_path: Path, name: str) -> None:
    """What would mean something to a tool where it is written ends in .txt."""
    found = write(named(name), tmp_path).texts[name].found
    assert found is not None
    assert found.name == f"{name}.txt"


def test_a_file_and_a_folder_of_one_name_stay_apart(tmp_path: Path) -> None:
    """Paths ``a.c`` and ``a.c/b.c`` get a file each."""
    coverage = counted()
    paths = ["a.c", "a.c/b.c", "d.c/e.c", "d.c"]
    files = {path: replace(coverage.files[A], path=path) for path in paths}
    sources = write(replace(coverage, files=files), tmp_path)
    found = [sources.texts[path].found for path in paths]
    assert len(set(found)) == len(paths)
    assert all(one is not None and one.is_file() for one in found)


def test_long_names_and_high_lines_are_cut(tmp_path: Path) -> None:
    """A name longer than file systems take is shortened; a line beyond any source is left out."""
    path = "ä" * 300 + ".c"
    coverage = named(path)
    file = coverage.files[path]
    far = replace(file, lines={**file.lines, 1_000_000_000: file.lines[min(file.lines)]})
    sources = write(replace(coverage, files={path: far}), tmp_path)
    found = sources.texts[path].found
    assert found is not None
    assert found.name.endswith(".c")
    assert found.stat().st_size < 10_000
    assert [one for one in sources.notices if "left out" in one]


def test_a_failed_write_leaves_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is full, no part of a file is there."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", fail)
    with pytest.raises(OSError, match="No space"):
        write(counted(), tmp_path)
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []
