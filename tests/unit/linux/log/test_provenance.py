"""Which ld_imm64 is behind a register."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.linux.log.provenance import Origin, origins

ONE = "ld_pseudo r1, 1, 5; "
CASES = {
    "a move": (ONE + "r6 = r1; exit", 3, 6, {0}),
    "arithmetic": ("ld_pseudo r1, 2, 5; r2 = 1; r2 += r1; r2 += 8; exit", 5, 2, {0}),
    "a stack slot": (ONE + "*(u64 *)(r10 - 8) = r1; r2 = *(u64 *)(r10 - 8); exit", 4, 2, {0}),
    "two ways": (ONE + "if r2 == 0 goto +2; ld_pseudo r1, 1, 6; exit", 5, 1, {0, 3}),
    "a loop": (ONE + "r6 = r1; ld_pseudo r1, 1, 6; if r2 == 0 goto -4; exit", 6, 6, {0, 3}),
    "a call": (ONE + "call sub; exit; sub: r6 = r1; exit", 5, 6, {0}),
    "a result": ("call sub; exit; sub: ld_pseudo r0, 1, 5; exit", 1, 0, {2}),
    "what a call leaves": (ONE + "call bpf_ktime_get_ns; exit", 3, 1, set()),
    "a lookup": (ONE + "call bpf_map_lookup_elem; exit", 3, 0, {0}),
    "a callback": (
        ONE + "ld_pseudo r2, 4, 3; call bpf_for_each_map_elem; exit; r0 = r3; exit",
        7,
        0,
        {0},
    ),
    "overwritten": (ONE + "w1 = w2; exit", 3, 1, set()),
}


@pytest.mark.parametrize("name", list(CASES))
def test_an_address_is_followed(name: str) -> None:
    """Through everything that keeps it."""
    text, slot, reg, want = CASES[name]
    program = asm.assemble(text)
    found = origins(program, np.ones(len(program), bool), (), [(slot, reg)])
    assert found[slot, reg] == {Origin(one) for one in want}


def test_a_lookup_in_a_map_of_maps_gives_the_inner_one() -> None:
    """And a lookup in that one its value."""
    program = asm.assemble(
        "ld_pseudo r1, 1, 5; call bpf_map_lookup_elem; r1 = r0; call bpf_map_lookup_elem; exit"
    )
    found = origins(program, np.ones(len(program), bool), [0], [(3, 0), (5, 0)])
    assert set(found.values()) == {frozenset({Origin(0, is_inner=True)})}


def test_code_that_is_not_reached_adds_nothing() -> None:
    """Only what was seen counts."""
    program = asm.assemble("ld_pseudo r1, 1, 5; if r2 == 0 goto +2; ld_pseudo r1, 1, 6; exit")
    seen = np.array([True, True, True, False, False, True])
    assert origins(program, seen, (), [(5, 1)])[5, 1] == {Origin(0)}
