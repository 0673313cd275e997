"""Helpers that are written out, and tail calls, beside what the running kernel makes of them."""

from __future__ import annotations

import pytest

from bpfpatch import kernel
from bpfpatch.linux.passes.fixup_calls import FixupCalls
from support.cases.fixupparity import Case, assert_same
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

ROOM = "".join(f"*(u64 *)(r10 - {off}) = 0; " for off in (8, 16, 24))
CALLS = {
    "jiffies64": ("call 118", "socket_filter"),
    "get_smp_processor_id": ("call 8", "socket_filter"),
    "get_smp_processor_id in xdp": ("call 8", "xdp"),
    "get_prandom_u32": ("call 7", "socket_filter"),
    "ktime_get_ns": ("call 5", "socket_filter"),
    "get_numa_node_id": ("call 42", "socket_filter"),
    "get_current_task": ("call 35", "kprobe"),
    "get_current_task_btf": ("call 158", "raw_tracepoint"),
    "get_func_ip": ("r1 = r6; call 173", "kprobe"),
    "get_branch_snapshot": ("r1 = r10; r1 += -24; r2 = 24; r3 = 0; call 176", "raw_tracepoint"),
}
PLACES = {
    "once": "{0}; r0 = 0; exit",
    "target": "call 7; if r0 == 0 goto at; r7 = 1; at: {0}; r0 = 0; exit",
    "loop": "r7 = 3; at: {0}; r7 -= 1; if r7 > 0 goto at; r0 = 0; exit",
    "subprog": "call sub; r0 = 0; exit; sub: r6 = 0; " + ROOM + "{0}; r0 = 0; exit",
    "twice": "{0}; {0}; r0 = 0; exit",
}


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CALLS)
def test_helpers(name: str, place: str) -> None:
    """Each helper is written out, or left, as the kernel does, wherever its call is."""
    call, kind = CALLS[name]
    if place == "subprog" and "r6" in call:
        pytest.skip("no such case: its argument is the context")
    if "prandom" in call and kind != "socket_filter":
        pytest.skip("not on this kernel: no such helper")
    text = "r6 = r1; " + ROOM + PLACES[place].format(call)
    assert_same(Case(text, load={"prog_type": kind}), FixupCalls())


@pytest.mark.parametrize(
    "text",
    [
        "r2 = map[id:0]; r3 = 1; call 12; r0 = 0; exit",
        "r6 = r1; r2 = map[id:0]; r3 = 1; call 12; r1 = r6; r2 = map[id:0]; r3 = 9; call 12; "
        "r0 = 0; exit",
        "r6 = r1; call 7; r3 = r0; r1 = r6; r2 = map[id:0]; call 12; r0 = 0; exit",
    ],
)
def test_tail_calls(text: str) -> None:
    """A tail call's code does not change for a privileged user."""
    with kernel.Map.create("prog_array", max_entries=5) as programs:
        maps = [programs] * text.count("map[")
        assert_same(Case(text, maps=maps), FixupCalls())
