"""Which files and lines a report is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.missing import missing
from bpfpatch.coverage.scope import Scope, excluded, narrowed
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.totals import of_object
from bpfpatch.coverage.words import shortened
from bpfpatch.errors import OptionError
from support.models.countedcode import A, B, counted


def reduced(scope: Scope, marks: dict[int, str] | None = None) -> Coverage:
    """The example, with marks at the end of lines of a.c."""
    coverage = counted()
    first = coverage.files[A]
    text = {
        **first.text,
        **{n: f"{first.text.get(n, '')} /* {m} */" for n, m in (marks or {}).items()},
    }
    coverage = replace(coverage, files={**coverage.files, A: replace(first, text=text)})
    return narrowed(coverage, Sources.find(coverage), scope)


@pytest.mark.parametrize(
    ("include", "exclude", "kept"),
    [
        ((), (), {A, B}),
        (("*.c",), (), {A}),
        (("b.h",), (), {B}),
        (("/usr/*",), (), {B}),
        ((), ("*/include/*",), {A}),
        (("*",), ("a.*",), {B}),
        (("src/*", "*.h"), (), {A, B}),
    ],
)
def test_files_by_pattern(
    include: tuple[str, ...], exclude: tuple[str, ...], kept: set[str]
) -> None:
    """A file is in it if it fits what is included, and nothing that is excluded."""
    assert set(reduced(Scope(include, exclude)).files) == kept


def test_functions_go_with_their_files() -> None:
    """Functions of which no line is left do not count, nor do those without lines."""
    assert [one.name for one in reduced(Scope(include=("*.c",))).functions] == ["main", "never"]
    found = reduced(Scope(exclude=("a.c",)))
    assert [one.name for one in found.functions] == ["never", "bare"]
    totals = of_object(found)
    assert (str(totals.lines), str(totals.branches), str(totals.functions)) == ("0/1", "0/0", "1/2")


def test_nothing_left_is_an_error() -> None:
    """Patterns that no file fits are an error that names the files."""
    with pytest.raises(OptionError, match=r"include x\.c; there are .*b\.h"):
        reduced(Scope(include=("x.c",)))


def test_marked_lines_are_left_out() -> None:
    """A line with LCOV_EXCL_LINE has no count and no branches; others stay."""
    found = reduced(Scope(), {5: "LCOV_EXCL_LINE"})
    assert list(found.files[A].lines) == [3, 4, 6, 8, 9, 13]
    assert list(found.files[A].branches) == [4]
    assert str(of_object(found).branches) == "2/2"


def test_marked_sections_are_left_out() -> None:
    """From the line with START on, up to the one before STOP."""
    found = reduced(Scope(), {5: "LCOV_EXCL_START", 7: "x", 8: "LCOV_EXCL_STOP"})
    assert list(found.files[A].lines) == [3, 4, 8, 9, 13]
    assert str(of_object(found).blocks) == "4/5"  # of 7, two have no other lines


def test_marked_branches_are_left_out() -> None:
    """With BR the lines count, and their branches do not."""
    found = reduced(Scope(), {5: "LCOV_EXCL_BR_LINE"})
    assert 5 in found.files[A].lines
    assert list(found.files[A].branches) == [4]
    both = reduced(Scope(), {4: "LCOV_EXCL_BR_START", 6: "LCOV_EXCL_BR_STOP"})
    assert not both.files[A].branches


def test_a_function_is_left_out_with_its_first_line() -> None:
    """A function that starts in a line that is left out does not count; its lines do."""
    found = reduced(Scope(), {3: "LCOV_EXCL_LINE"})
    assert str(of_object(found).functions) == "1/2"
    assert 4 in found.files[A].lines
    assert found.files[A].functions == ()


def test_markers_can_be_left_alone() -> None:
    """Without markers, what they say does not matter."""
    found = reduced(Scope(has_markers=False), {5: "LCOV_EXCL_LINE"})
    assert 5 in found.files[A].lines


@pytest.mark.parametrize(
    ("text", "lines", "notices"),
    [
        ({1: "// LCOV_EXCL_START", 3: "x"}, {1, 3}, ["a.c:1: LCOV_EXCL_START has no STOP"]),
        ({1: "// LCOV_EXCL_STOP"}, set(), ["a.c:1: LCOV_EXCL_STOP ends nothing"]),
        ({1: "// LCOV_EXCL_STARTING", 2: "x"}, set(), []),
        ({1: "// LCOV_EXCL_EXCEPTION_BR_LINE"}, set(), []),
        ({1: "// LCOV_EXCL_START", 2: "// LCOV_EXCL_START", 3: "// LCOV_EXCL_STOP"}, {1, 2}, []),
    ],
)
def test_markers(text: dict[int, str], lines: set[int], notices: list[str]) -> None:
    """Markers are whole words; one without a counterpart is told."""
    found = excluded("a.c", text)
    assert found.lines == lines
    assert not found.branches
    assert [one.split(",")[0] for one in found.notices] == notices


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ({}, ""),
        ({1: 1, 2: 5}, ""),
        ({1: 0}, "1"),
        ({1: 0, 2: 0, 5: 0}, "1-5"),
        ({1: 0, 2: 3, 5: 0, 9: 0, 10: None, 11: 0}, "1, 5-9, 11"),
    ],
)
def test_missing_lines(counts: dict[int, int | None], text: str) -> None:
    """Ranges go on over lines without code, and end at one that ran or is not known."""
    assert missing(counts) == text


def test_missing_lines_as_in_coverage_py() -> None:
    """coverage.py writes the same ranges."""
    results = pytest.importorskip("coverage.results")
    for number in range(256):
        counts: dict[int, int | None] = {3 * at + 1: int(bool(number >> at & 1)) for at in range(8)}
        lacking = {line for line, count in counts.items() if not count}
        assert missing(counts) == results.format_lines(counts, lacking)


@pytest.mark.parametrize(
    ("paths", "room", "shown"),
    [
        (["src/a.c", "total"], 10, ["src/a.c", "total"]),
        (
            ["/build/proj/src/first.c", "/build/proj/src/lib/second.h", "total"],
            20,
            ["…/first.c", "…/lib/second.h", "total"],
        ),
        (["a/very/long/path/to/some/file.c", "b.c"], 18, ["…/file.c", "b.c"]),
        (["/abs/a_name_of_twenty_two.c", "rel/b.c"], 4, ["…wenty_two.c"[-16:], "rel/b.c"]),
    ],
)
def test_paths_are_cut_from_the_left(paths: list[str], room: int, shown: list[str]) -> None:
    """First what all have in common goes, then more; some is always left."""
    found = shortened(paths, room)
    if room > 4:
        assert found == shown
    assert all(len(one) <= max(room, 16) for one in found)
    assert all(path.endswith(one.lstrip("…")) for path, one in zip(paths, found, strict=True))
