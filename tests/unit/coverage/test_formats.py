"""One table of the forms of a report."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from bpfpatch.coverage.formats import BY_NAME, FORMATS, ReportFormat, Writer, format_of
from bpfpatch.coverage.sources import Sources
from support.models.countedcode import counted

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("form", FORMATS, ids=lambda one: one.name)
def test_every_form_is_written_in_the_same_way(form: ReportFormat) -> None:
    """What ran, where sources are and a title are all that any writer takes."""
    coverage = counted()
    writer = form.writer()
    assert (
        list(inspect.signature(writer).parameters)
        == list(inspect.signature(Writer.__call__).parameters)[1:]
    )
    assert writer(coverage, Sources.find(coverage), "a.o").endswith("\n")


def test_a_name_of_a_file_tells_its_form() -> None:
    """Each suffix stands for one form, in either case; others for none."""
    suffixes = [suffix for one in FORMATS for suffix in one.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    for suffix in suffixes:
        found = format_of(f"out{suffix.upper()}")
        assert found is not None
        assert suffix in found.suffixes
    assert format_of("out.txt") is format_of("-") is None


def test_documentation_lists_the_forms() -> None:
    """docs/coverage.md offers what there is."""
    (listed,) = re.findall(r"\[--format ([\w|]+)\]", (ROOT / "docs" / "coverage.md").read_text())
    assert listed.split("|") == ["terminal", *BY_NAME]
