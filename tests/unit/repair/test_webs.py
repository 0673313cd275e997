"""Webs of stack slots, and registers with nothing in their upper halves."""

from __future__ import annotations

import bpfpatch as bp
from bpfpatch.repair.site import SiteCode
from bpfpatch.repair.uppers import zero_uppers
from bpfpatch.repair.webs import web_of


def code_of(text: str) -> SiteCode:
    """The code of a program."""
    return SiteCode(bp.PatchList(bp.asm.assemble(text.replace(";", "\n"))))


def test_two_values_of_one_slot_are_two_webs() -> None:
    """A store that covers another one ends its web."""
    code = code_of(
        "*(u32 *)(r10 - 4) = r1; r2 = *(u32 *)(r10 - 4); *(u32 *)(r10 - 4) = r2;"
        "r3 = *(u32 *)(r10 - 4); exit"
    )
    assert (web_of(code, 0).stores, web_of(code, 0).loads) == ((0,), (1,))
    assert (web_of(code, 2).stores, web_of(code, 2).loads) == ((2,), (3,))


def test_stores_that_reach_one_load_are_one_web() -> None:
    """Stores on both sides of a branch reach what is behind it."""
    code = code_of(
        "if r1 == 1 goto l; *(u32 *)(r10 - 4) = r1; goto m; l: *(u32 *)(r10 - 4) = r2;"
        "m: r3 = *(u32 *)(r10 - 4); exit"
    )
    web = web_of(code, 1)
    assert (web.stores, web.loads, web.is_open) == ((1, 3), (4,), False)


def test_a_loop_carries_a_store_round() -> None:
    """A store at the end of a loop reaches a load at its start."""
    code = code_of(
        "*(u32 *)(r10 - 4) = r1; l: r2 = *(u32 *)(r10 - 4); r2 += 1; *(u32 *)(r10 - 4) = r2;"
        "if r2 < 9 goto l; exit"
    )
    assert web_of(code, 0).stores == (0, 3)


def test_a_part_written_by_another_store_opens_a_web() -> None:
    """A store of some of the bytes leaves more than one value in what is loaded."""
    code = code_of("*(u32 *)(r10 - 4) = r1; *(u8 *)(r10 - 4) = r2; r3 = *(u32 *)(r10 - 4); exit")
    assert web_of(code, 0).is_open


def test_upper_halves() -> None:
    """Loads of 32 bits, 32-bit arithmetic and copies of them leave 0 above; others do not."""
    code = code_of(
        "r2 = *(u32 *)(r1 + 0); r3 = r2; w4 = w3; r5 = *(u64 *)(r1 + 0); r3 += 1; r5 >>= 32;"
        "r6 = -1; r7 = 1; exit"
    )
    at_end = zero_uppers(code, 0)[8]
    assert {reg for reg in range(10) if at_end >> reg & 1} == {2, 4, 5, 7}


def test_upper_halves_hold_on_all_paths() -> None:
    """What one path leaves 0 and another does not is not known."""
    code = code_of("if r1 == 1 goto l; w2 = w1; goto m; l: r2 = r1; m: r0 = 0; exit")
    assert not zero_uppers(code, 0)[4] >> 2 & 1
