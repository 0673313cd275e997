"""nops: where a jump does nothing, and where it stays. Plain cases are text files."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.passes import Nops
from bpfpatch.passes.nops import nop_slots
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import FUNC_INFO, JUMP_TABLE, Anchor, AnchoredTable, Program, Subprogs
from support.cases.passcase import assert_rewrite, assert_unchanged, run


@pytest.mark.parametrize("nop", ["goto +0", "gotol +0", "may_goto +0"])
def test_each_kind_of_nop_goes(nop: str) -> None:
    """Goto +0, gotol +0 and may_goto +0 do nothing."""
    assert_rewrite(f"r0 = 0; {nop}; exit", "nops", "r0 = 0; exit")


def test_nop_at_a_functions_start_goes() -> None:
    """The function then starts at the next instruction, and its record with it."""
    program = assemble("call f; exit; f: goto +0; r0 = 1; exit")
    table = AnchoredTable(np.array([0, 2], np.int32), np.array([7, 8]), Anchor.ENTRY, unique=True)
    after = run("nops", program.with_tables(**{FUNC_INFO: table})).program
    assert after.to_bytes() == assemble("call f; exit; f: r0 = 1; exit").to_bytes()
    assert after.tables[FUNC_INFO].insn.tolist() == [0, 2]


def test_loop_around_nops_becomes_a_self_jump() -> None:
    """A jump back over nothing but nops then jumps to itself."""
    assert_rewrite("again: goto +0; goto +0; goto again", "nops", "again: goto again")


def test_jump_tables_follow() -> None:
    """An entry that led to a nop leads to what follows it."""
    program = assemble("gotox r1; goto +0; r0 = 1; exit")
    table = AnchoredTable(np.array([1, 2], np.int32), np.array([1, 2]), Anchor.LAND)
    after = run("nops", program.with_tables(**{JUMP_TABLE: table})).program
    assert after.to_bytes() == assemble("gotox r1; r0 = 1; exit").to_bytes()
    assert after.tables[JUMP_TABLE].insn.tolist() == [1, 1]


def test_nops_of_an_earlier_edit_go() -> None:
    """What became a nop by an edit of the same list goes, too."""
    patches = PatchList(assemble("goto out; r0 = 1; out: r0 = 2; exit"))
    patches.delete(1)
    patches.insert_before(2, Body.of(isa.may_goto(0)))
    Nops().run(patches)
    assert patches.linearize().program.to_bytes() == assemble("r0 = 2; exit").to_bytes()


def test_long_jump_over_nops_only_is_one() -> None:
    """The distance does not count, only what lies in between."""
    text = "goto out;" + "goto +0;" * 5000 + "out: exit"
    assert_rewrite(text, "nops", "exit")


def test_jump_out_of_its_function_is_not_hidden() -> None:
    """A goto +0 that ends a function runs into the next one: that mistake stays to be seen."""
    subprogs = Subprogs(np.array([0, 2]), ("f", "g"), np.array([0, 0]))
    program = Program(assemble("r0 = 0; goto +0; r0 = 1; exit").insns, subprogs=subprogs)
    assert nop_slots(PatchList(program).view()).size == 0
    assert_unchanged(program, "nops")


def test_conditional_branch_over_nops_stays() -> None:
    """Only what always jumps is a nop; the nops under a condition go."""
    assert_rewrite("if r1 == 0 goto out; goto +0; out: exit", "nops", "if r1 == 0 goto +0; exit")


def test_code_without_nops_is_unchanged() -> None:
    """A jump over something, a call and a condition are no nops."""
    assert_unchanged("if r1 == 0 goto out; call 7; goto out; r0 = 1; out: exit", "nops")


def test_nothing_else_is_left_to_find() -> None:
    """A second run finds nothing."""
    text = "a: goto b; b: goto c; goto d; c: goto d; d: if r1 == 0 goto a; goto e; e: exit"
    once = run("nops", text).program
    assert_unchanged(once, "nops")
