"""Where a call that is put in would lose arguments passed by R11."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackargs import passing
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import Program

STORE, LOAD, CALL = "*(u64 *)(r11 - 8) = 1", "r6 = *(u64 *)(r11 + 8)", "call 7"


def _view(text: str) -> CodeView:
    return PatchList(assemble(text)).view()


def _passing(view: CodeView) -> list[bool]:
    found: list[bool] = passing(view, Blocks.of(view, np.zeros(0, np.int32))).tolist()
    return found


def test_between_a_store_and_its_call() -> None:
    """From behind the store on, up to the call itself."""
    assert _passing(_view(f"r1 = 1\n{STORE}\nr2 = 2\n{CALL}\nr0 = 0\nexit")) == [
        False, False, True, True, False, False,
    ]  # fmt: skip


def test_in_front_of_a_load() -> None:
    """From the function's start on, up to its last load."""
    assert _passing(_view(f"r1 = 1\n{LOAD}\nr7 = *(u64 *)(r11 + 16)\nr0 = 0\nexit")) == [
        True, True, True, False, False,
    ]  # fmt: skip


_LINES = st.sampled_from([STORE, LOAD, CALL, "r7 += 1", "if r7 > 3 goto", "goto", "exit"])


@given(st.lists(st.tuples(_LINES, st.integers(0, 11)), min_size=1, max_size=12))
def test_is_what_following_all_paths_finds(lines: list[tuple[str, int]]) -> None:
    """The answer is that of a walk over single instructions until nothing changes."""
    n_lines = len(lines)
    text = ["r0 = 0", "r7 = 0"]
    for at, (line, goal) in enumerate(lines):
        text.append(f"l{at}:")
        text.append(f"{line} l{goal % n_lines}" if "goto" in line else line)
    view = _view("\n".join([*text, "r0 = 0", "exit"]))
    assert _passing(view) == _naive(view)


def _naive(view: CodeView) -> list[bool]:
    which = isa.stack_args(view.insns).tolist()
    calls = isa.is_call(view.insns).tolist()
    goals: list[set[int]] = [set() for _ in which]
    for slot, falls in enumerate(isa.falls_through(view.insns).tolist()):
        if falls:
            goals[slot].add(slot + 1)
    for slot, target in zip(view.ref_slot.tolist(), view.ref_target.tolist(), strict=True):
        goals[slot].add(target)
    stored, wanted = [False] * len(which), [False] * len(which)
    for _ in which:
        for slot in range(len(which)):
            after = which[slot] < 0 or (stored[slot] and not calls[slot])
            for goal in goals[slot]:
                stored[goal] |= after
            ends = calls[slot] or which[slot] < 0
            ahead = any(wanted[goal] for goal in goals[slot])
            wanted[slot] = which[slot] > 0 or (ahead and not ends)
    return [one or other for one, other in zip(stored, wanted, strict=True)]


def _is_known(text: str) -> list[bool]:
    view = _view(text)
    found: list[bool] = StackUse.of(view, Blocks.of(view, np.zeros(0, np.int32))).is_known.tolist()
    return found


def test_a_frame_is_unknown_once_its_address_is_passed() -> None:
    """What a callee does with an address that comes by R11 is not followed."""
    callee = ".subprog f\nr6 = *(u64 *)(r11 + 8)\n*(u64 *)(r6 - 32) = 1\nr0 = 0\nexit"
    text = f"r6 = r10\nr6 += -8\n*(u64 *)(r11 - 8) = r6\ncall f\nr0 = 0\nexit\n{callee}"
    assert _is_known(text) == [False, True]
    assert _is_known(text.replace("r6 = r10", "r6 = 5")) == [True, True]


def test_an_address_given_on_is_the_callers_still() -> None:
    """A function that passes an address of its caller's frame on makes that frame unknown."""
    text = (
        "r1 = r10\nr1 += -8\ncall f\nr0 = 0\nexit\n"
        ".subprog f\n*(u64 *)(r11 - 8) = r1\ncall g\nr0 = 0\nexit\n"
        ".subprog g\nr6 = *(u64 *)(r11 + 8)\n*(u64 *)(r6 - 32) = 1\nr0 = 0\nexit"
    )
    assert _is_known(text)[0] is False


def test_nothing_is_passed_where_nothing_names_r11() -> None:
    """Code without stack arguments takes calls everywhere."""
    assert not any(_passing(_view(f"r0 = 0\n{CALL}\nexit")))
    assert _passing(PatchList(Program(isa.concat([]))).view()) == []
