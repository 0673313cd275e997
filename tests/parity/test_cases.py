"""Every case file's programs: what we make of them is what the kernel made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch.errors import BpfPatchError
from support.cases.parity import compare_case
from support.cases.paritycase import ParityCase, read_cases
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

FILES = sorted((Path(__file__).parent / "cases").glob("*.txt"))
CASES = [case for path in FILES for case in read_cases(path)]
AT_LEAST = 250


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def test_there_are_enough_cases() -> None:
    """There are at least 250 programs, and no two are the same."""
    assert len(CASES) >= AT_LEAST
    assert len({(case.type, case.attach, case.flags, case.text) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: ParityCase) -> None:
    """Code, subprograms, func_info and line_info are equal, with the kernel's aux and our own."""
    try:
        outcome = compare_case(case)
    except BpfPatchError as error:
        if "unknown func" in str(error) or "invalid kernel function" in str(error):
            pytest.skip(f"not on this kernel: {error}")
        raise
    assert outcome.is_equal, str(outcome)
