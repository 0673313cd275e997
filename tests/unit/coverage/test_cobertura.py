"""Cobertura's XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bpfpatch.coverage import Branch
from bpfpatch.coverage.cobertura import to_cobertura
from bpfpatch.coverage.sources import Sources
from bpfpatch.errors import OptionError
from support.models.countedcode import counted, without_lines

CHILDREN = {
    "coverage": ["sources", "packages"],
    "sources": ["source"],
    "packages": ["package"],
    "package": ["classes"],
    "classes": ["class"],
    "class": ["methods", "lines"],
    "methods": ["method"],
    "method": ["lines"],
    "lines": ["line"],
    "line": ["conditions"],
    "conditions": ["condition"],
}
"""coverage-04.dtd: what each element may hold, in this order."""

RATES = {"line-rate", "branch-rate", "complexity"}
COUNTS = {"lines-covered", "lines-valid", "branches-covered", "branches-valid"}
ATTRIBUTES = {
    "coverage": {*RATES, *COUNTS, "version", "timestamp"},
    "package": {*RATES, "name"},
    "class": {*RATES, "name", "filename"},
    "method": {*RATES, "name", "signature"},
    "line": {"number", "hits"},
    "condition": {"number", "type", "coverage"},
}
"""coverage-04.dtd: which attributes each element must have."""


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")


def report(branches: dict[int, tuple[Branch, ...]] | None = None) -> ElementTree.Element:
    """The report on the example, parsed."""
    coverage = counted(branches=branches)
    text = to_cobertura(coverage, Sources.find(coverage), "a.o")
    return ElementTree.fromstring(text)


def test_structure_is_that_of_the_dtd() -> None:
    """Each element has the children and attributes that the DTD asks for."""
    elements = list(report().iter())
    assert {element.tag for element in elements} >= {"package", "class", "line"}
    for element in elements:
        allowed = CHILDREN.get(element.tag, [])
        places = [allowed.index(child.tag) for child in element]
        assert places == sorted(places)
        assert set(element.attrib) >= ATTRIBUTES.get(element.tag, set())


def test_doctype_names_the_dtd() -> None:
    """The document says by which DTD it is to be read."""
    coverage = counted()
    head = to_cobertura(coverage, Sources.find(coverage)).splitlines()[:2]
    assert head[0] == '<?xml version="1.0" encoding="UTF-8"?>'
    assert "coverage-04.dtd" in head[1]


def test_totals() -> None:
    """The root counts lines and branches: 6 of 8 lines ran, 3 of 4 ways."""
    root = report()
    found = {name: root.get(name) for name in (*sorted(COUNTS), "line-rate", "branch-rate")}
    assert found == {
        "branches-covered": "3",
        "branches-valid": "4",
        "lines-covered": "6",
        "lines-valid": "8",
        "line-rate": "0.7500",
        "branch-rate": "0.7500",
    }


def test_lines_of_a_file() -> None:
    """Every line with code has its hits."""
    (one,) = (found for found in report().iter("class") if found.get("filename") == "src/a.c")
    hits = [(row.get("number"), row.get("hits")) for row in one.findall("./lines/line")]
    assert hits == [
        ("3", "10"),
        ("4", "10"),
        ("5", "7"),
        ("6", "7"),
        ("8", "3"),
        ("9", "10"),
        ("13", "0"),
    ]


def test_branch_line_has_conditions() -> None:
    """A line with a jump that went one way only is covered by half."""
    (line,) = report().findall(".//class[@filename='src/a.c']/lines/line[@number='5']")
    assert (line.get("branch"), line.get("condition-coverage")) == ("true", "50% (1/2)")
    (condition,) = line.findall("./conditions/condition")
    assert condition.attrib == {"number": "0", "type": "jump", "coverage": "50%"}


def test_unknown_ways_are_no_branch() -> None:
    """A line of whose jumps nothing is known is none with branches."""
    root = report({4: (Branch(1, None, None),)})
    (line,) = root.findall(".//class[@filename='src/a.c']/lines/line[@number='4']")
    assert line.get("branch") == "false"
    assert root.get("branches-valid") == "0"


def test_method_has_its_own_lines() -> None:
    """A function's lines are those of the file that it has code of."""
    (method,) = report().findall(".//method[@name='main']")
    numbers = [line.get("number") for line in method.iter("line")]
    assert numbers == ["3", "4", "5", "6", "8", "9"]
    assert method.get("line-rate") == "1.0000"


def test_nothing_without_lines() -> None:
    """An object without line info is refused."""
    coverage = without_lines()
    with pytest.raises(OptionError, match="no line info"):
        to_cobertura(coverage, Sources.find(coverage))
