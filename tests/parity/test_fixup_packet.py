"""Loads from a packet by position, beside what the running kernel makes of them."""

from __future__ import annotations

import pytest

from bpfpatch.linux.passes.fixup_calls import FixupCalls
from support.cases.fixupparity import Case, assert_same
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


SIZES = ("u8", "u16", "u32")
FORMS = ("0", "14", "-0x100000", "r0", "r7", "r0 + 4", "r8 - 2", "0x7fffffff")
START = "r6 = r1; r0 = 1; r7 = 2; r8 = 3; "


@pytest.mark.parametrize("kind", ["socket_filter", "sched_cls", "sched_act"])
@pytest.mark.parametrize("size", SIZES)
def test_forms(size: str, kind: str) -> None:
    """Every size and form of a position is expanded as the kernel does."""
    text = "; ".join(f"r0 = *({size} *)skb[{form}]" for form in FORMS)
    assert_same(Case(START + text + "; exit", load={"prog_type": kind}), FixupCalls())


@pytest.mark.parametrize(
    "text",
    [
        "at: r0 = *(u8 *)skb[0]; r7 += 1; if r7 < 5 goto at; exit",
        "r0 = *(u8 *)skb[0]; if r0 == 3 goto at; r0 = 1; at: r0 = *(u32 *)skb[r7 + 4]; exit",
        "r0 = *(u8 *)skb[0]; r1 = 3; r0 /= r1; exit",
    ],
)
def test_places(text: str) -> None:
    """Wherever the load is, jumps around it go where the kernel's go."""
    assert_same(Case(START + text), FixupCalls())
