"""bpf_loop and other calls with callbacks, beside what the running kernel makes of them."""

from __future__ import annotations

import pytest

from bpfpatch import kernel
from bpfpatch.linux.passes.fixup_calls import FixupCalls
from bpfpatch.linux.passes.inline_loop import InlineLoop
from support.cases.fixupparity import Case, assert_same
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


CALLBACK = "cb: r0 = 0; exit"
CALL = "r1 = 5; r2 = func cb ll; r3 = 0; r4 = 0; call 181"


def same(text: str, depths: tuple[int, ...], callback: dict[int, int]) -> None:
    """Our code is the kernel's."""
    assert_same(Case(text, depths=depths, callback=callback), InlineLoop(), FixupCalls())


@pytest.mark.parametrize("depth", [0, 1, 4, 8, 9, 16, 100, 480])
def test_frames(depth: int) -> None:
    """The registers are saved right below the frame, rounded up to whole slots."""
    use = f"*(u8 *)(r10 - {depth}) = 1; " if depth else ""
    at = 1 if depth else 0
    same(f"main: {use}{CALL}; exit; {CALLBACK}", (depth,), {at + 5: at + 1})


def test_two_loops() -> None:
    """Two loops of one subprog share their slots."""
    same(f"main: {CALL}; {CALL}; exit; {CALLBACK}", (0,), {5: 1, 11: 7})


def test_two_callbacks() -> None:
    """Each loop calls its own callback."""
    other = CALL.replace("cb", "other")
    text = f"main: {CALL}; {other}; exit; {CALLBACK}; other: r0 = 1; exit"
    same(text, (0,), {5: 1, 11: 7})


def test_loop_in_a_callback() -> None:
    """A callback's own loop uses the callback's frame."""
    inner = CALL.replace("cb", "other")
    text = f"main: {CALL}; exit; cb: *(u64 *)(r10 - 16) = 1; {inner}; r0 = 0; exit; "
    same(text + "other: r0 = 1; exit", (0, 16, 0), {5: 1, 13: 9})


def test_flags_that_are_not_zero() -> None:
    """A loop whose flags are not known to be 0 stays a call."""
    text = (
        "main: call 7; r6 = r0; r6 &= 1; r1 = 5; r2 = func cb ll; r3 = 0; r4 = r6; call 181; "
        f"exit; {CALLBACK}"
    )
    same(text, (0,), {})


def test_loop_as_a_target() -> None:
    """A jump to the call reaches the loop."""
    text = (
        "main: call 7; r1 = 5; r2 = func cb ll; r3 = 0; r4 = 0; if r0 == 0 goto at; r1 = 6; "
        f"at: call 181; r0 = 0; exit; {CALLBACK}"
    )
    same(text, (0,), {8: 2})


def test_loop_and_may_goto() -> None:
    """may_goto's slots come below those of the loop."""
    text = f"main: *(u64 *)(r10 - 8) = 1; {CALL}; may_goto +1; goto -2; exit; {CALLBACK}"
    same(text, (8,), {6: 2})


def test_loop_and_divisions() -> None:
    """Guards in the callback and behind the loop move the call's target."""
    text = f"main: {CALL}; r6 = 7; r0 /= r6; exit; cb: r6 = 3; r0 = 8; r0 %= r6; r0 = 0; exit"
    same(text, (0,), {5: 1})


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("hash", 0),
        ("percpu_hash", 0),
        ("lru_hash", 0),
        ("lru_percpu_hash", 0),
        ("array", 0),
        ("percpu_array", 0),
    ],
)
def test_for_each(kind: str, flags: int) -> None:
    """Going through a map is a direct call of that kind of map's function."""
    text = (
        "main: r1 = map[id:0]; r2 = func cb ll; r3 = 0; r4 = 0; call 164; r0 = 0; exit; "
        "cb: r0 = 0; exit"
    )
    with kernel.Map.create(kind, 4, 8, 16, flags=flags) as made:
        assert_same(Case(text, maps=[made]), FixupCalls())
