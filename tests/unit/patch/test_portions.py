"""Lists that are longer than what is worked on in one go."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program

N = 70_000
SITES = {
    "few": [3, 40_000, 40_001, 69_998],
    "in no order": [69_998, 3, 40_000],
    "many": [*range(0, N, 3)],
    "at borders": [16_383, 16_384, 32_767, 32_768, 65_535, 65_536],
}


def _moves(n_insns: int) -> Program:
    insns = np.tile(isa.mov(isa.R0, 0), n_insns + 1)
    insns["imm"][:-1] = np.arange(n_insns)
    insns[-1] = isa.exit_()[0]
    return Program(insns)


@pytest.mark.parametrize("sites", SITES.values(), ids=SITES)
@pytest.mark.parametrize("verb", ["insert_before", "insert_after", "replace", "delete"])
def test_order_is_that_of_plain_lists(sites: list[int], verb: str) -> None:
    """A long program is edited as a list of numbers would be."""
    patches = PatchList(_moves(N))
    if verb == "delete":
        patches.delete(sites)
    else:
        getattr(patches, verb)(sites, Body.of(isa.mov(isa.R0, -1), isa.mov(isa.R0, -2)))
    expected: list[int] = []
    chosen = set(sites)
    body = [] if verb == "delete" else [-1, -2]
    for number in range(N):
        own = [number]
        if number in chosen:
            own = {
                "insert_before": [*body, number],
                "insert_after": [number, *body],
            }.get(verb, body)
        expected += own
    program = patches.linearize().program
    assert program.insns["imm"].tolist() == [*expected, 0]


def test_different_bodies_at_far_places() -> None:
    """The same for a body a site, also where whole portions have none."""
    patches = PatchList(_moves(N))
    sites = [5, 66_000]
    patches.replace(
        sites, [Body.of(isa.mov(isa.R0, -1)), Body.of(*[isa.mov(isa.R0, -2)] * 3, isa.ja(0))]
    )
    imms = patches.linearize().program.insns["imm"].tolist()
    assert imms == [*range(5), -1, *range(6, 66_000), -2, -2, -2, 0, *range(66_001, N), 0]


def test_jumps_of_bodies_at_many_places() -> None:
    """Each copy's jumps reach what is theirs: itself, the original, what that one reaches."""
    n_jumps = 40_000
    insns = np.tile(isa.jump("==", isa.R1, 0, 0), n_jumps + 1)
    insns["off"][:-1] = np.arange(n_jumps) % 2
    insns[-2:] = isa.exit_()[0]
    patches = PatchList(Program(insns))
    jumps = patches.find(isa.is_cond_jump)
    patches.replace(jumps, Body.asm("if r2 == 0 goto @target; if r3 == 0 goto @end; @orig"))
    refs = patches.linearize().program.refs
    slot, target = refs.slot.reshape(-1, 3), refs.target.reshape(-1, 3)
    start = 3 * np.arange(jumps.size)
    assert (slot == start[:, None] + np.arange(3)).all()
    old_target = np.arange(jumps.size) + 1 + np.arange(jumps.size) % 2
    # What is not replaced comes behind all bodies, in its order.
    reached = np.where(old_target < jumps.size, 3 * old_target, 2 * jumps.size + old_target)
    assert (target[:, 0] == reached).all()
    assert (target[:, 1] == start + 3).all()
    assert (target[:, 2] == reached).all()


def test_target_of_a_jump_that_came_in() -> None:
    """A body may stand for a jump that an earlier edit has put in front of others."""
    patches = PatchList(Program(np.concatenate([isa.mov(isa.R0, 0), isa.ja(0), isa.exit_()])))
    put_in = patches.insert_before(0, Body.asm("goto @end"))
    assert patches.target_of(put_in) == 0
    patches.replace(put_in, Body.asm("if r1 == 0 goto @target; exit"))
    program = patches.linearize().program
    assert program.refs.slot.tolist() == [0, 3]
    assert program.refs.target.tolist() == [2, 4]
