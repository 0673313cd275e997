"""Random programs that the verifier accepts: what we make of them is what the kernel made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.cases.parity import run_seeds
from support.cases.paritycase import ParityCase
from support.generators.programs import acceptable_case
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

N_PROGRAMS = 300
"""`make parity-long` takes 50,000."""
N_BLINDED = 60
PER_TEST = 100
MOST = 0.9


@pytest.mark.parametrize("first", range(0, N_PROGRAMS, PER_TEST))
def test_random_programs(first: int) -> None:
    """With the kernel's aux all are equal; with our own, but for what only paths tell, too.

    Nearly all are equal with our own as they are, and nearly all load.
    """
    need_bpf()
    found = run_seeds(range(first, first + PER_TEST), acceptable_case)
    assert not found.different, "\n\n".join(found.different[:3])
    assert found.n_equal >= MOST * PER_TEST


def blinded_case(seed: int) -> ParityCase:
    """A random program that is loaded with constants blinded."""
    return replace(acceptable_case(seed), is_hardened=True)


def test_blinded_programs() -> None:
    """With blinded constants they are equal, too: each pair decodes to its constant."""
    need_bpf()
    found = run_seeds(range(N_PROGRAMS, N_PROGRAMS + N_BLINDED), blinded_case)
    assert not found.different, "\n\n".join(found.different[:3])
    assert found.n_equal >= MOST * N_BLINDED
