"""The machine and the kernel agree on random programs that the verifier accepts."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine, Skb
from support.generators.programs import verifiable_code
from support.machine.rawload import RejectedError, kernel_result
from support.machine.tools import bpf_allowed

PACKET = bytes(range(40, 100))
PER_TEST = 100

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("start", range(0, 3 * PER_TEST, PER_TEST))
def test_random_programs(start: int) -> None:
    """R0, folded over all registers and the stack, is what the kernel's run gives."""
    if not bpf_allowed():
        pytest.skip("bpf(2) is not allowed here")
    n_run = 0
    for seed in range(start, start + PER_TEST):
        program = assemble(verifiable_code(seed))
        try:
            wanted = kernel_result(program.to_bytes(), PACKET)
        except RejectedError:
            continue
        outcome = Machine(program).run(Skb(PACKET, is_l2=False))
        assert outcome.r0 & 0xFFFF_FFFF == wanted, seed
        n_run += 1
    assert n_run > 0.8 * PER_TEST
