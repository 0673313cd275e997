"""The lcov tracefile."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch.coverage import Branch
from bpfpatch.coverage.lcov import to_lcov
from bpfpatch.coverage.sources import Sources
from bpfpatch.errors import OptionError
from support.models.countedcode import counted, without_lines

EXPECTED = """\
TN:try_1
SF:src/a.c
FN:3,main
FNDA:10,main
FNF:1
FNH:1
BRDA:4,0,0,3
BRDA:4,0,1,7
BRDA:5,0,0,0
BRDA:5,0,1,7
BRF:4
BRH:3
DA:3,10
DA:4,10
DA:5,7
DA:6,7
DA:8,3
DA:9,10
DA:13,0
LF:7
LH:6
end_of_record
TN:try_1
SF:/usr/include/b.h
FN:2,never
FNDA:0,never
FNF:1
FNH:0
BRF:0
BRH:0
DA:2,0
LF:1
LH:0
end_of_record
"""


def branch_rows(*branches: Branch) -> list[str]:
    """What the tracefile says of the branches of line 4."""
    coverage = counted(branches={4: branches})
    text = to_lcov(coverage, Sources.find(coverage))
    return [row for row in text.splitlines() if row.startswith("BR")][: 2 * len(branches) + 2]


def test_all_records() -> None:
    """Functions, branches and lines are there, with the totals of each file."""
    coverage = counted()
    assert to_lcov(coverage, Sources.find(coverage), "try 1") == EXPECTED


def test_jump_that_never_ran() -> None:
    """The ways of a jump that never ran have no count but a dash."""
    assert branch_rows(Branch(1, 0, 0)) == ["BRDA:4,0,0,-", "BRDA:4,0,1,-", "BRF:2", "BRH:0"]


def test_unknown_way() -> None:
    """A way whose count is not known is left out, also of the totals."""
    rows = branch_rows(Branch(1, None, 5))
    assert rows[:3] == ["BRDA:4,0,1,5", "BRF:1", "BRH:1"]


def test_several_jumps_of_a_line() -> None:
    """Each jump of a line is a block of its own."""
    rows = branch_rows(Branch(1, 3, 7), Branch(2, 1, 0))
    assert rows[:4] == ["BRDA:4,0,0,3", "BRDA:4,0,1,7", "BRDA:4,1,0,1", "BRDA:4,1,1,0"]


def test_found_source_has_its_place(tmp_path: Path) -> None:
    """A source file that was found is named by where it is below its folder."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "b.h").write_text("#pragma once\nint never(void);\n")
    coverage = counted()
    text = to_lcov(coverage, Sources.find(coverage, [tmp_path]))
    assert "SF:include/b.h\n" in text


def test_nothing_without_lines() -> None:
    """An object without line info is refused, and told what shows it."""
    coverage = without_lines()
    with pytest.raises(OptionError, match=r"no line info.*html"):
        to_lcov(coverage, Sources.find(coverage))
