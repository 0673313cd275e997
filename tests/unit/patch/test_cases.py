"""Every case file in tests/cases/patch: drop one in, and it is a test.

``BLESS=1 pytest tests/unit/patch/test_cases.py`` writes what comes out into the
files' ``after``; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpfpatch.errors import BpfPatchError
from support.cases.casefile import Case
from support.cases.rewrite import assert_same_listing

CASES = sorted((Path(__file__).parents[2] / "cases" / "patch").glob("*.txt"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path):
    """What the case file's first line says."""
    case = Case.read(path)
    if "error" in case.parts:
        with pytest.raises(BpfPatchError) as caught:
            case.run()
        for line in case.parts["error"].strip().splitlines():
            assert line.strip() in f"{type(caught.value).__name__}: {caught.value}", case.title
    else:
        got = case.run()
        if os.environ.get("BLESS") and got != case.wanted():
            case.bless(got)
            pytest.skip("not compared: it was blessed")
        assert_same_listing(got, case.wanted())


def test_there_are_cases():
    """The case files are found."""
    assert len(CASES) >= 12
