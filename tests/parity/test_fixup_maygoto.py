"""may_goto beside what the running kernel makes of it."""

from __future__ import annotations

import pytest

from bpfpatch.linux.passes.fixup_calls import FixupCalls
from bpfpatch.passes.nops import Nops
from support.cases.fixupparity import Case, assert_same
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


CASES = {
    "forward": ("r0 = 0; may_goto +1; goto -2; exit", (0,)),
    "backward": ("r0 = 0; at: r0 += 1; may_goto end; goto at; end: exit", (0,)),
    "first": ("at: may_goto end; r0 = 0; goto at; end: r0 = 1; exit", (0,)),
    "two": (
        "r0 = 0; a: may_goto b; r0 += 1; goto a; b: may_goto c; r0 += 1; goto b; c: exit",
        (0,),
    ),
    "nested": (
        "r0 = 0; a: may_goto end; b: may_goto c; r0 += 1; goto b; c: goto a; end: exit",
        (0,),
    ),
    "slot in use": ("r0 = 0; *(u64 *)(r10 - 8) = 1; may_goto +1; goto -2; exit", (8,)),
    "part of a slot in use": ("r0 = 0; *(u32 *)(r10 - 4) = 1; may_goto +1; goto -2; exit", (4,)),
    "odd bytes in use": ("r0 = 0; *(u8 *)(r10 - 13) = 1; may_goto +1; goto -2; exit", (13,)),
    "deep": ("r0 = 0; *(u64 *)(r10 - 400) = 1; may_goto +1; goto -2; exit", (400,)),
    "in a subprog": (
        "r0 = 0; *(u64 *)(r10 - 8) = 0; call sub; exit; "
        "sub: at: may_goto end; r0 = 1; goto at; end: r0 = 2; exit",
        (8, 0),
    ),
    "in both": (
        "r0 = 0; *(u64 *)(r10 - 16) = 0; call sub; may_goto +1; goto -2; exit; "
        "sub: *(u64 *)(r10 - 32) = 0; at: may_goto end; r0 = 1; goto at; end: r0 = 2; exit",
        (16, 32),
    ),
    "with a division in front": (
        "r0 /= r6; may_goto +1; goto -2; exit",
        (0,),
    ),
    "division at the target": (
        "r0 = 9; r6 = 2; may_goto at; goto -2; at: r0 /= r6; exit",
        (0,),
    ),
    "far": ("r0 = 0; a: may_goto at; " + "r0 += 1; " * 200 + "goto a; at: exit", (0,)),
    "jump to the first": ("at: may_goto end; goto at; end: r0 = 0; exit", (0,)),
    "nothing between": ("may_goto +0; r0 = 0; exit", (0,)),
}


@pytest.mark.parametrize("name", CASES)
def test_may_goto(name: str) -> None:
    """Counts, their slots and their prologues are the kernel's."""
    text, depths = CASES[name]
    if text.startswith("r0 /="):
        text = "r0 = 7; r6 = 2; " + text
    assert_same(Case(text, depths=depths), Nops(once=True), FixupCalls())
