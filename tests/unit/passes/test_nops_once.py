"""nops{once=true}: one pass that looks back behind a may_goto +0, and nowhere else."""

from __future__ import annotations

import random

import pytest

from bpfpatch.asm import assemble
from bpfpatch.passes.nops import nop_slots
from bpfpatch.patch import CodeView
from support.cases.passcase import assert_rewrite, run

ONCE = "nops{once=true}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("goto +0; r0 = 0; exit", "r0 = 0; exit"),
        ("may_goto +0; r0 = 0; exit", "r0 = 0; exit"),
        ("gotol +0; r0 = 0; exit", "gotol +0; r0 = 0; exit"),
        ("goto on; goto +0; on: exit", "goto +0; exit"),
        ("goto on; may_goto +0; on: exit", "exit"),
        ("may_goto on; may_goto +0; on: exit", "exit"),
        ("may_goto on; may_goto on; may_goto +0; on: exit", "exit"),
        ("goto on; goto on; may_goto +0; on: exit", "goto +0; exit"),
        ("may_goto on; goto on; may_goto +0; on: exit", "may_goto +0; exit"),
        ("goto on; r0 = 1; may_goto +0; on: exit", "goto on; r0 = 1; on: exit"),
        ("goto on; goto +0; on: r0 = 1; may_goto +0; exit", "goto +0; r0 = 1; exit"),
    ],
)
def test_what_one_pass_finds(before: str, after: str) -> None:
    """A jump that becomes a nop too late stays; one right in front of a may_goto +0 goes."""
    assert_rewrite(before, ONCE, after)


def test_line_of_a_nop_slides() -> None:
    """The function then starts at the next instruction."""
    result = run(ONCE, "call f; exit; f: goto +0; r0 = 1; exit")
    assert result.program.subprogs.start.tolist() == [0, 2]


def swept(kinds: list[tuple[str, int]]) -> list[int]:
    """What stays of jumps to slots, by the loop that the docstring of the pass has."""
    code = list(enumerate(kinds))
    at = 0

    def is_nop(at: int) -> bool:
        slot, (kind, goal) = code[at]
        between = [s for s, _ in code if slot < s < goal]
        return kind != "r0 = 0" and goal > slot and not between

    while at < len(code):
        if not is_nop(at):
            at += 1
            continue
        was_may = code.pop(at)[1][0] == "may_goto"
        if was_may and at > 0:
            at -= 1
    return [slot for slot, _ in code]


@pytest.mark.parametrize("seed", range(60))
def test_sweep_equals_the_plain_loop(seed: int) -> None:
    """On any row of jumps, what goes is what the plain loop takes out."""
    rng = random.Random(seed)
    count = rng.randint(1, 14)
    kinds = [
        (rng.choice(("goto", "may_goto", "may_goto", "r0 = 0") if at else ("goto",)), 0)
        for at in range(count)
    ]
    kinds = [
        (kind, min(count, at + rng.choice((1, 1, 2, 2, 3, 4))))
        for at, (kind, _) in enumerate(kinds)
    ]
    text = "".join(
        f"L{at}: {kind}{'' if kind == 'r0 = 0' else f' L{goal}'};"
        for at, (kind, goal) in enumerate(kinds)
    )
    view = CodeView.of_program(assemble(f"{text} L{count}: exit"))
    gone = set(nop_slots(view, once=True).tolist())
    assert [at for at in range(count) if at not in gone] == swept(kinds)
