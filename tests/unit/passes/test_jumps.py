"""Detours that `jumps` takes out, and those that it leaves."""

from __future__ import annotations

import pytest

from bpfpatch.asm import assemble
from bpfpatch.passes import Pipeline
from bpfpatch.program import Program

FILLER = 20_000
"""Slots within reach of a 16-bit jump, of which the kernel's rewriting may make too many."""


def straightened(text: str) -> Program:
    """What is left of assembly."""
    return Pipeline.parse("jumps").run(assemble(text)).program


def detours(between: int) -> tuple[str, str]:
    """(a jump over a `goto`, a jump to one) with so much code up to the goal."""
    code = "r6 += r7; " * between
    return (
        f"r0 = 0; r6 = 1; if r1 == 0 goto on; goto out; on: {code} out: exit",
        f"r0 = 0; r6 = 1; if r1 == 0 goto via; r0 = 1; goto over; via: goto out; over: {code} "
        "if r6 == 0 goto via; r6 = 3; out: exit",
    )


@pytest.mark.parametrize("which", [0, 1], ids=["over", "to"])
def test_a_detour_goes_unless_the_goal_is_far(which: int) -> None:
    """A conditional jump is not made to go further than the kernel's own rewriting leaves room."""
    near, far = detours(10)[which], detours(FILLER)[which]
    assert len(straightened(near)) < len(assemble(near))
    kept = straightened(far).insns
    jump = kept[kept["code"] == 0x15][0]
    assert abs(int(jump["off"])) < 16
