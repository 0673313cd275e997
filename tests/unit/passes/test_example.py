"""The public example of a user's own pass, as a file that is loaded like a plugin."""

from __future__ import annotations

import pytest

from support.cases.passcase import assert_rewrite, assert_unchanged, run
from support.session.plugins import EXAMPLES, load_plugin


@pytest.fixture(autouse=True)
def _loaded(_own_registry: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin is registered, for the length of a test."""
    load_plugin(EXAMPLES / "count_calls.py", monkeypatch)


def test_counts_and_prints() -> None:
    """Every call counts; the count is printed on return, and the return value survives that."""
    assert_rewrite(
        "call 7; exit",
        "count-calls",
        """
        r0 = 0; *(u64 *)(r10 - 8) = 0
        r0 = *(u64 *)(r10 - 8); r0 += 1; *(u64 *)(r10 - 8) = r0
        call 7
        r6 = r0
        r3 = *(u64 *)(r10 - 8)
        r1 = 0x006425206c6c6163 ll
        *(u64 *)(r10 - 8) = r1
        r1 = r10; r1 += -8; r2 = 8; call 6
        r0 = r6
        exit
        """,
    )


def test_loop_to_the_first_insn_does_not_start_the_count_again() -> None:
    """The prologue runs on entry only."""
    assert_rewrite(
        ".subprog main; again: call 7; if r0 != 0 goto again; exit",
        "count-calls{prints=false}",
        """
        .subprog main
        r0 = 0; *(u64 *)(r10 - 8) = 0
        again: r0 = *(u64 *)(r10 - 8); r0 += 1; *(u64 *)(r10 - 8) = r0
        call 7
        if r0 != 0 goto again
        exit
        """,
    )


def test_counter_is_below_the_stack_in_use() -> None:
    """Stores, loads, atomics and taken addresses all say how deep the stack goes."""
    for insn in (
        "*(u8 *)(r10 - 17) = 1",
        "*(u64 *)(r10 - 24) = r1",
        "r1 = *(u32 *)(r10 - 20)",
        "lock *(u64 *)(r10 - 24) += r1",
        "r1 = r10; r1 += -24",
    ):
        after = run("count-calls{prints=false}", f"{insn}; call 7; exit").program
        assert after.insns["off"][1] == -32


def test_only_functions_that_call_are_touched() -> None:
    """A function without helper calls stays, and so does one without the asked helper."""
    assert_unchanged("call f; exit; f: r0 = 0; exit", "count-calls")
    assert_unchanged("call 7; exit", "count-calls{helper=5}")


def test_full_stack_is_left_alone() -> None:
    """Where no eight bytes are left, there is no counter."""
    assert_unchanged("*(u64 *)(r10 - 512) = 0; call 7; exit", "count-calls")
