"""Tables and source with counts, and the numbers and texts in them."""

from __future__ import annotations

import pytest

from bpfpatch.coverage import Branch
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.terminal import file_table, function_table, source_listing
from bpfpatch.coverage.words import percent, shown_path
from bpfpatch.text import visible
from support.models.countedcode import counted, without_lines


def test_file_table() -> None:
    """A row a file, one for code without lines, and a total that is their sum."""
    table = file_table(counted())
    assert [row.cells for row in table.rows] == [
        ("src/a.c", "6/7", "85.7 %", "3/4", "75.0 %", "1/1", "5/5"),
        ("/usr/include/b.h", "0/1", "0.0 %", "0/0", "-", "0/1", "0/1"),
        ("(no source line)", "0/0", "-", "0/0", "-", "1/1", "1/1"),
        ("total", "6/8", "75.0 %", "3/4", "75.0 %", "2/3", "6/7"),
    ]
    assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_function_table() -> None:
    """A row a function, with where it starts."""
    table = function_table(counted())
    assert [row.cells for row in table.rows] == [
        ("main", "xdp", "src/a.c:3", "10", "5/5", "100.0 %", "3/4"),
        ("never", ".text", "/usr/include/b.h:2", "0", "0/1", "0.0 %", "0/0"),
        ("bare", ".text", "", "4", "1/1", "100.0 %", "0/0"),
    ]
    assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_source_listing() -> None:
    """Lines have counts, jumps both their ways, and lines that are not known a gap."""
    coverage = counted()
    shown = list(source_listing(coverage, Sources.find(coverage)))
    assert shown == [
        ("head", "src/a.c:"),
        ("hit", "           10      3  int main(int a, int b)"),
        ("hit", "           10      4  \tif (!a)  [jump 3 / on 7]"),
        ("part", "            7*     5  \t\tif (b > 5)  [jump 0 / on 7]"),
        ("hit", '            7      6  \t\t\tputs("<b>&\\x1b");'),
        ("gap", "                ..."),
        ("hit", "            3      8  \ta = 2;"),
        ("hit", "           10      9  \treturn a;"),
        ("gap", "                ..."),
        ("miss", "            0     13  }"),
        ("head", "/usr/include/b.h:"),
        ("miss", "            0      2  ; r0 = 0x9"),
        ("head", "bare, called 4 times:"),
        ("hit", "            4      9  r0 = 0x0"),
        ("hit", "                  10  exit"),
    ]


def test_unknown_way_is_a_question_mark() -> None:
    """A way whose count is not known is shown as such, and takes nothing from the line."""
    coverage = counted(branches={4: (Branch(1, None, 5),)})
    rows = list(source_listing(coverage, Sources.find(coverage)))
    assert ("hit", "           10      4  \tif (!a)  [jump ? / on 5]") in rows


def test_many_jumps_of_a_line_are_summed_up() -> None:
    """A line of many jumps says how many ways were taken."""
    coverage = counted(branches={4: tuple(Branch(1, at, 0) for at in range(5))})
    texts = [text for _, text in source_listing(coverage, Sources.find(coverage))]
    assert "           10*     4  \tif (!a)  [4 of 10 ways]" in texts


def test_code_without_lines_is_shown_by_blocks() -> None:
    """Without line info there are instructions, the count at the first of each block."""
    coverage = without_lines()
    shown = list(source_listing(coverage, Sources.find(coverage)))
    assert shown[:4] == [
        ("head", "main, called 10 times:"),
        ("hit", "           10      0  r0 = 0x0"),
        ("hit", "                   1  if r1 == 0x0 goto L5"),
        ("hit", "            7      2  if r2 > 0x5 goto L6"),
    ]
    assert file_table(coverage).rows[-1].cells[:2] == ("total", "0/0")


@pytest.mark.parametrize(
    ("hit", "total", "text"),
    [(0, 0, "-"), (0, 5, "0.0 %"), (1, 3, "33.3 %"), (9999, 10000, "99.9 %"), (5, 5, "100.0 %")],
)
def test_percent(hit: int, total: int, text: str) -> None:
    """Only all is 100 percent, and only nothing 0."""
    assert percent(hit, total) == text


def test_one_of_many_is_not_nothing() -> None:
    """One line of very many is more than 0 percent."""
    assert percent(1, 100_000) == "0.1 %"


def test_hidden_characters_show() -> None:
    """Control characters and marks that reverse a line's order cannot hide; tabs stay."""
    assert visible("a\x00\t\x1b\u202eb\n\ud800") == "a\\x00\t\\x1b\\u202eb\\x0a\\ud800"


def test_paths_lose_their_detours() -> None:
    """A path is shown without dots that lead nowhere."""
    assert shown_path("./lib/../a/./b.c") == "a/b.c"
    assert shown_path("") == "(no name)"
