"""From counters to functions, files, lines and branches."""

from __future__ import annotations

import pytest

from bpfpatch.coverage import Branch, Coverage, cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.errors import FormatError, OptionError
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover import SECTION, CoverMap, LineRow
from support.inputs.bpfobjects import fixture_path
from support.models.covering import object_of

TEXT = """
.subprog f0
  r0 = 0
  if r1 == 1 goto L
  r0 = 1
L:
  call g
  exit
.subprog g
  r0 = 2
  exit
"""
LINES = (
    LineRow(0, "a.c", 10, 1, "int f0(int x) {"),
    LineRow(1, "a.c", 11, 1, "\tif (x)"),
    LineRow(2, "a.c", 12, 1, "\t\tone();"),
    LineRow(3, "a.c", 11, 5, "\tif (x)"),
    LineRow(4, "a.c", 0, 0, ""),
    LineRow(5, "b.h", 3, 1, "inline int g(void)"),
)


def cover_of(lines: tuple[LineRow, ...] = LINES, options: str = "edges=true") -> CoverMap:
    """The meaning of the counters of a small object, with lines."""
    made, _ = Pipeline.parse(f"cover{{{options}}}").run_object(object_of(TEXT))
    cover = cover_map(made)
    return CoverMap(
        cover.counting,
        cover.byteorder,
        cover.n_counters,
        cover.functions,
        lines,
        cover.code,
        cover.names,
    )


def counted(calls: int, taken: int) -> Coverage:
    """So many calls, of which so many took the branch; the counters for that are searched for."""
    cover = cover_of()
    for hits in _all_hits(cover, calls + 1):
        got = Coverage.of(cover, hits)
        blocks = [block.times for block in got.functions[0].blocks]
        found = (*blocks, got.functions[0].branches[0].taken, got.functions[1].calls)
        if found == (calls, calls - taken, calls, taken, calls):
            return got
    raise AssertionError("no counters say this")


def _all_hits(cover: CoverMap, limit: int) -> list[list[int]]:
    out: list[list[int]] = [[]]
    for _ in range(cover.n_counters):
        out = [[*hits, value] for hits in out for value in range(limit)]
    return out


def test_a_line_has_the_highest_count_of_its_blocks() -> None:
    """Line 11 has code in the block in front of the branch, and in the one behind."""
    got = counted(3, 1)
    assert got.files["a.c"].lines == {10: 3, 11: 3, 12: 2}
    assert got.files["b.h"].lines == {3: 3}


def test_a_branch_belongs_to_the_line_before_it() -> None:
    """Both sides of a conditional jump are with the line that it is on."""
    got = counted(3, 1)
    assert got.functions[0].branches == (Branch(1, 1, 2),)
    assert got.files["a.c"].branches == {11: (Branch(1, 1, 2),)}


def test_functions_belong_to_the_file_that_they_start_in() -> None:
    """A function's name, place and calls are in one file's list."""
    got = counted(3, 1)
    (first,), (second,) = got.files["a.c"].functions, got.files["b.h"].functions
    assert (first.name, first.file, first.line, first.calls) == ("f0", "a.c", 10, 3)
    assert (second.name, second.line) == ("g", 3)


def test_text_is_as_in_the_source() -> None:
    """Indentation stays; a line without a number is none."""
    assert counted(1, 0).files["a.c"].text == {
        10: "int f0(int x) {",
        11: "\tif (x)",
        12: "\t\tone();",
    }


def test_source_text_of_an_object_is_indented() -> None:
    """What clang wrote down of a line begins with what it is indented by."""
    obj = ElfObject.read(fixture_path("xdp_balancer.clang-19.v3.el.g.o"))
    made, _ = Pipeline.parse("cover").run_object(obj)
    texts = [row.text for row in cover_map(made).lines]
    assert any(text.startswith("\t") for text in texts)
    assert not any(text.endswith((" ", "\n")) for text in texts)


def test_without_lines_there_are_no_files() -> None:
    """Functions are there all the same."""
    got = Coverage.of(cover_of(()), [0] * cover_of().n_counters)
    assert got.files == {}
    assert [one.file for one in got.functions] == ["", ""]


def test_counts_below_0_are_shown_as_0() -> None:
    """Counters that do not fit together give a notice, and no number below 0."""
    cover = cover_of()
    got = [Coverage.of(cover, hits) for hits in _all_hits(cover, 3)]
    bad = [one for one in got if one.notices]
    assert bad
    assert all("below 0 and are shown as 0" in one.notices[0] for one in bad)
    assert all(block.times >= 0 for one in bad for block in one.functions[0].blocks)


def test_the_notice_of_plain_counters_names_the_way_out() -> None:
    """Plain counting loses counts: the notice says what does not."""
    cover = cover_of(options="edges=true,count=plain")
    notices = {text for hits in _all_hits(cover, 3) for text in Coverage.of(cover, hits).notices}
    assert all("count=atomic does not" in text for text in notices)
    assert notices


def test_wrong_number_of_counters() -> None:
    """The numbers are named."""
    cover = cover_of()
    with pytest.raises(OptionError, match=r"1000 counters are given, the object has \d+"):
        Coverage.of(cover, [0] * 1000)


def test_merging_adds() -> None:
    """Two runs taken together have the sums of their counts."""
    both = counted(3, 1).merged(counted(2, 2), counted(1, 0))
    assert both.files["a.c"].lines == {10: 6, 11: 6, 12: 3}
    assert both.functions[0].branches == (Branch(1, 3, 3),)


def test_merging_keeps_notices() -> None:
    """What is to be known of either is to be known of both, once."""
    cover, zeros = cover_of(), [0] * cover_of().n_counters
    one = Coverage.of(cover, zeros, ["slow", "hot"])
    other = Coverage.of(cover, zeros, ["hot", "dry"])
    assert one.merged(other).notices == ("slow", "hot", "dry")


def test_merging_counters_of_different_objects_is_refused() -> None:
    """Counters mean something for one instrumented object only."""
    one, other = cover_of(), cover_of(options="edges=false")
    with pytest.raises(OptionError, match=f"object {other.identity:016x} cannot be added"):
        Coverage.of(one, [0] * one.n_counters).merged(Coverage.of(other, [0] * other.n_counters))


def test_an_object_that_does_not_count() -> None:
    """The error says how to make one that does."""
    with pytest.raises(OptionError, match=r"not instrumented.*bpfpatch cover OBJ -o OUT"):
        cover_map(object_of(TEXT))


def test_a_section_that_is_none() -> None:
    """What is in the section's place is checked."""
    with pytest.raises(FormatError, match=r"\.bpfpatch\.cover is broken"):
        cover_map(object_of(TEXT).with_section(SECTION, b"what is this?"))
