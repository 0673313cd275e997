"""Room on the stack along chains of calls."""

from __future__ import annotations

from bpfpatch.asm import assemble
from bpfpatch.dataflow.stackuse import stack_room
from bpfpatch.patch import PatchList


def _room(text: str, deepest: list[int]) -> list[int]:
    found: list[int] = stack_room(PatchList(assemble(text)).view(), deepest).tolist()
    return found


def test_only_what_reaches_a_recursion_has_no_end() -> None:
    """A function beside the circle keeps the room of its own chain."""
    text = (
        ".subprog a\ncall b\ncall d\nexit\n.subprog b\ncall c\nexit\n.subprog c\ncall b\nexit\n"
        ".subprog d\ncall e\nexit\n.subprog e\nr0 = 0\nexit"
    )
    room = _room(text, [32] * 5)
    assert all(one < 0 for one in room[:3])
    assert room[4] == room[3]


def test_a_chain_counts_each_frame_once() -> None:
    """Three frames of 32 bytes leave 512 - 3 * 32 for any one of them to grow by."""
    text = ".subprog a\ncall b\nexit\n.subprog b\ncall c\ncall c\nexit\n.subprog c\nr0 = 0\nexit"
    assert _room(text, [32, 32, 32]) == [512 - 96] * 3
