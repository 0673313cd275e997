"""Before and after of pipelines, from text files: drop one in, it is a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cases.passcase import assert_rewrite

CASES = Path(__file__).resolve().parents[2] / "cases" / "passes"


@pytest.mark.parametrize("path", sorted(CASES.glob("*.txt")), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    """The file's first line is the sentence that must hold."""
    head, rest = path.read_text().split("--- before\n")
    before, after = rest.split("--- after\n")
    (pipeline,) = [line.partition(":")[2] for line in head.splitlines() if line[:9] == "pipeline:"]
    assert_rewrite(before, pipeline.strip(), after)
