"""What is not known, since no counter could be placed, in every form of a report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bpfpatch.coverage import BlockCount, Branch, Coverage
from bpfpatch.coverage.formats import FORMATS, ReportFormat
from bpfpatch.coverage.sources import Sources
from bpfpatch.coverage.terminal import file_table, function_table, source_listing
from support.models.countedcode import MAIN, NEVER, A, counted


def with_gaps() -> Coverage:
    """The example where of line 6, one way in line 5 and the calls of ``never`` nothing is known.

    Of a.c 5 of 6 lines are known to have run, and 3 of 3 ways that are known.
    """
    coverage = counted()
    branches = (MAIN.branches[0], Branch(2, None, 7))
    blocks = (*MAIN.blocks[:2], BlockCount(3, 5, None), *MAIN.blocks[3:])
    main = replace(MAIN, branches=branches, blocks=blocks)
    never = replace(NEVER, calls=None)
    first, second = coverage.files.values()
    files = {
        A: replace(
            first,
            lines={**first.lines, 6: None},
            branches={4: branches[:1], 5: branches[1:]},
            functions=(main,),
        ),
        second.path: replace(second, functions=(never,)),
    }
    return replace(coverage, functions=(main, never, coverage.functions[2]), files=files)


def lcov(text: str) -> None:
    """No row of what is not known, and it is not in the totals."""
    first = text.split("end_of_record", maxsplit=1)[0].splitlines()
    assert not [row for row in first if row.startswith("DA:6,")]
    assert [row for row in first if row.startswith("BRDA:5,")] == ["BRDA:5,0,1,7"]
    assert {"LF:6", "LH:5", "BRF:3", "BRH:3"} <= set(first)
    assert "never" not in text


def cobertura(text: str) -> None:
    """No element of the line; a condition has the ways that are known."""
    root = ElementTree.fromstring(text)
    (first,) = root.findall(".//class[@filename='src/a.c']")
    lines = {line.get("number"): line for line in first.findall("./lines/line")}
    assert "6" not in lines
    assert lines["5"].get("condition-coverage") == "100% (1/1)"
    assert root.get("lines-valid") == "7"


def html(text: str) -> None:
    """A question mark, and a row of its own kind."""
    (row,) = re.findall(r'<tr class="(\w)" id="f0-6">.*?<td class="t">([^<]*)', text)
    assert row == ("q", "?")
    assert "\u21b7\u202f?" in text


def markdown(text: str) -> None:
    """Not among what is missing, nor in the totals."""
    (row,) = re.findall(r"^\| .*a\.c .*$", text, re.M)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "5/6"
    assert cells[-1] == "13"


def as_json(text: str) -> None:
    """Null."""
    body = json.loads(text)
    lines = {line["line"]: line for line in body["files"][0]["lines"]}
    assert lines[6]["count"] is None
    assert lines[5]["branches"] == [{"slot": 2, "taken": None, "not_taken": 7}]
    assert [one["calls"] for one in body["functions"]] == [10, None, 4]


CHECKS: dict[str, Callable[[str], None]] = {
    "lcov": lcov,
    "cobertura": cobertura,
    "html": html,
    "markdown": markdown,
    "json": as_json,
}


@pytest.mark.parametrize("form", FORMATS, ids=lambda one: one.name)
def test_what_is_not_known_is_not_made_up(form: ReportFormat) -> None:
    """A count that does not follow from the counters is told apart from one that is 0."""
    coverage = with_gaps()
    CHECKS[form.name](form.writer()(coverage, Sources.find(coverage), "a.o"))


def test_what_is_not_known_on_the_terminal() -> None:
    """A question mark in the listing and the functions, and nothing in the totals."""
    coverage = with_gaps()
    listing = [text for _, text in source_listing(coverage, Sources.find(coverage))]
    assert [row.split()[:2] for row in listing if " 6  " in row] == [["?", "6"]]
    assert "jump ? / on 7" in "\n".join(listing)
    assert [row.cells[3] for row in function_table(coverage).rows] == ["10", "?", "4"]
    assert file_table(coverage).rows[0].cells[1] == "5/6"
