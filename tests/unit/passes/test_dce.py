"""dce: what it may not decide, and what becomes of the records. The plain cases are text files."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble, format_program
from bpfpatch.passes import Dce, Pipeline
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import (
    FUNC_INFO,
    JUMP_TABLE,
    LINE,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    OnReplace,
    Program,
    Subprogs,
)
from support.cases.passcase import assert_rewrite, assert_unchanged, run

DECIDABLE = "r1 = 0; if r1 == 0 goto out; r0 = 1; out: exit"
DECIDED = "r1 = 0; goto out; out: exit"


def table(slots: list[int], anchor: Anchor, **options: Any) -> AnchoredTable:
    """Rows that hold the slots that they sat on at first."""
    return AnchoredTable(np.array(slots, np.int32), np.array(slots), anchor, **options)


def lines(slots: list[int]) -> AnchoredTable:
    """Line records; each one's number is its slot at first."""
    rows = np.zeros(len(slots), LINE)
    rows["line_col"] = np.array(slots) << 10
    return AnchoredTable(np.array(slots, np.int32), rows, Anchor.ENTRY, unique=True)


def where(program: Program, name: str) -> dict[int, int]:
    """A table as slot -> payload."""
    found = program.tables[name]
    rows = found.rows["line_col"] >> 10 if name == LINE_INFO else found.rows
    return dict(zip(found.insn.tolist(), rows.tolist(), strict=True))


def test_relocated_immediate_is_no_constant() -> None:
    """An instruction that a relocation belongs to makes no constant."""
    program = assemble(DECIDABLE)
    assert_unchanged(program.with_tables(reloc=table([0], Anchor.OWN)), "dce")


def test_core_record_on_the_branch_decides_nothing() -> None:
    """A branch whose constant a CO-RE record fills in stays, and so does its record."""
    program = assemble(DECIDABLE).with_tables(core_relo=table([1], Anchor.OWN))
    assert_unchanged(program, "dce")


def test_external_slot_is_no_constant() -> None:
    """What is declared external belongs to somebody else's relocation."""
    program = dataclasses.replace(assemble(DECIDABLE), external=np.array([0], np.int32))
    assert_unchanged(program, "dce")


def test_kernel_symbol_address_is_no_constant() -> None:
    """The 0 in an ld_imm64 that a loader will overwrite is not known."""
    program = assemble("r1 = 0 ll; if r1 == 0 goto out; r0 = 1; out: exit")
    assert_unchanged(program.with_tables(reloc=table([0], Anchor.OWN)), "dce")
    assert_rewrite(program, "dce", "r1 = 0 ll; goto out; out: exit")


def test_rows_on_jump_targets_hide_nothing() -> None:
    """A label or line record on an instruction does not make its constant unknown."""
    program = assemble(DECIDABLE).with_tables(
        label=table([0, 1], Anchor.LAND), line_info=lines([0])
    )
    assert_rewrite(program, "dce", DECIDED)


def test_inserted_insns_are_constants() -> None:
    """What an earlier pass put in is looked at like anything else."""
    patches = PatchList(assemble("r1 = r2; if r1 == 0 goto out; r0 = 1; out: exit"))
    patches.replace(0, Body.asm("r1 = 0"))
    Dce().run(patches)
    assert format_program(patches.linearize().program) == format_program(assemble(DECIDED))


def test_attached_relocation_makes_its_insn_opaque() -> None:
    """An inserted ld_imm64 with a relocation of its own is no constant."""
    program = assemble("r1 = r2; if r1 == 0 goto out; r0 = 1; out: exit")
    patches = PatchList(program.with_tables(reloc=table([], Anchor.OWN)))
    node = patches.replace(0, Body.asm("r1 = 0 ll"))
    patches.attach("reloc", node, 7)
    Dce().run(patches)
    assert len(patches) == 4
    assert where(patches.linearize().program, "reloc") == {0: 7}


def test_deleted_code_takes_its_own_rows_along() -> None:
    """A relocation of a dead instruction goes; others move with theirs."""
    program = assemble("r1 = 0; if r1 == 0 goto out; r2 = 0 ll; out: r3 = 0 ll; exit")
    after = run("dce", program.with_tables(reloc=table([2, 4], Anchor.OWN))).program
    assert where(after, "reloc") == {2: 4}


def test_lines_slide_over_dead_code() -> None:
    """A dead instruction's line slides to the next live one; of several the last wins."""
    program = assemble("r1 = 0; if r1 == 0 goto out; r2 = 1; r2 = 2; out: r3 = 0; exit")
    after = run("dce", program.with_tables(line_info=lines([0, 1, 2, 3, 4]))).program
    assert where(after, LINE_INFO) == {0: 0, 1: 1, 2: 4}
    after = run("dce", program.with_tables(line_info=lines([0, 1, 2, 3]))).program
    assert where(after, LINE_INFO) == {0: 0, 1: 1, 2: 3}


def test_function_that_goes_takes_every_record_along() -> None:
    """func_info, lines and symbols of a removed function go, and no neighbour gets them."""
    text = """
        r1 = 0
        if r1 == 0 goto out
        call gone
        out: call last
        exit
        gone: r0 = 1
        exit
        last: r0 = 2
        exit
    """
    ends = np.array([5, 7, 9], np.int32)
    program = assemble(text).with_tables(
        line_info=lines([0, 3, 5, 6, 7, 8]),
        func_info=table([0, 5, 7], Anchor.ENTRY, unique=True),
        symbol=table([0, 5, 7], Anchor.ENTRY, end=ends),
    )
    after = run("dce", program).program
    assert after.subprogs.names == ("", "last")
    assert after.subprogs.start.tolist() == [0, 4]
    assert where(after, FUNC_INFO) == {0: 0, 4: 7}
    assert where(after, LINE_INFO) == {0: 0, 2: 3, 4: 7, 5: 8}
    assert where(after, "symbol") == {0: 0, 4: 7}
    symbols = after.tables["symbol"].end
    assert symbols is not None
    assert symbols.tolist() == [4, 6]


def test_last_function_can_go() -> None:
    """Nothing follows the last function; its records go all the same."""
    program = assemble("r1 = 1; if r1 == 1 goto out; call f; out: exit; f: r0 = 1; exit")
    program = program.with_tables(
        line_info=lines([0, 4, 5]), func_info=table([0, 4], Anchor.ENTRY, unique=True)
    )
    after = run("dce", program).program
    assert after.subprogs.start.tolist() == [0]
    assert where(after, LINE_INFO) == {0: 0}
    assert where(after, FUNC_INFO) == {0: 0}


def test_functions_stay_on_request() -> None:
    """With functions=false, a function stays although its last call goes."""
    text = "goto out; call f; out: exit; f: r0 = 1; exit"
    assert_rewrite(text, "dce{functions=false}", "goto out; out: exit; .subprog f; r0 = 1; exit")


def test_branches_stay_on_request() -> None:
    """With branches=false, only what no branch leads to goes."""
    assert_unchanged(DECIDABLE, "dce{branches=false}")
    assert_rewrite("goto out; r0 = 1; out: exit", "dce{branches=false}", "goto out; out: exit")


def test_function_that_something_outside_enters_stays() -> None:
    """A root stays when its last call goes, with what it calls."""
    program = assemble("goto out; call f; out: exit; f: call g; exit; g: r0 = 1; exit")
    roots = np.array([True, True, False])
    subprogs = dataclasses.replace(program.subprogs, is_root=roots)
    after = run("dce", dataclasses.replace(program, subprogs=subprogs)).program
    assert after.subprogs.names == ("", "f", "g")


def test_recursion_that_nothing_enters_stays() -> None:
    """Functions that only called each other to begin with have a reason of their own."""
    text = "r0 = 0; exit; f: call g; exit; g: call f; exit"
    assert_unchanged(text, "dce")


def test_self_recursion_goes_with_its_last_outside_call() -> None:
    """A function that calls itself is not alive for that."""
    assert_rewrite("goto out; call f; out: exit; f: call f; exit", "dce", "goto out; out: exit")


def test_call_that_an_earlier_pass_removed_counts() -> None:
    """A function whose last call another pass took out goes, too."""
    patches = PatchList(assemble("call f; exit; f: r0 = 1; exit"))
    patches.delete(0)
    Dce().run(patches)
    assert patches.linearize().program.to_bytes() == assemble("exit").to_bytes()


def test_jump_table_keeps_its_targets() -> None:
    """What a jump table names is reached by the function's gotox, and rows move with it."""
    program = assemble(
        "r9 = 1; goto on; r0 = 9; on: gotox r1; r0 = 1; exit; r0 = 2; exit; r0 = 3; exit"
    )
    program = program.with_tables(**{JUMP_TABLE: table([6, 4, 6], Anchor.LAND)})
    result = run("dce", program)
    wanted = assemble("r9 = 1; goto on; on: gotox r1; r0 = 1; exit; r0 = 2; exit")
    assert result.program.to_bytes() == wanted.to_bytes()
    moved = result.program.tables[JUMP_TABLE]
    assert moved.insn.tolist() == [5, 3, 5]
    assert moved.rows.tolist() == [6, 4, 6]


def test_jump_table_of_a_dead_function_goes() -> None:
    """A jump table's rows go with the function that they lead into."""
    program = assemble("goto out; call f; out: exit; f: gotox r1; r0 = 1; exit")
    program = program.with_tables(**{JUMP_TABLE: table([4], Anchor.LAND)})
    assert len(run("dce", program).program.tables[JUMP_TABLE]) == 0


def test_indirect_jump_without_table_keeps_its_function() -> None:
    """Without a table a gotox may go anywhere in its function: none of that is removed."""
    assert_unchanged("r2 = 1; gotox r1; goto out; r0 = 2; out: exit; exit", "dce")


def test_sections_keep_their_order() -> None:
    """A function that goes from one section leaves the other sections' functions in theirs."""
    code = assemble("goto out; call g; out: exit; .subprog f; call h; exit; g: exit; h: exit")
    subprogs = Subprogs(
        code.subprogs.start,
        code.subprogs.names,
        np.array([0, 1, 1, 2]),
        np.array([1, 1, 0, 0], bool),
    )
    program = dataclasses.replace(code, subprogs=subprogs, sections=("xdp", "tc", ".text"))
    after = run("dce", program).program
    assert after.subprogs.names == ("", "f", "h")
    assert after.section_bounds.tolist() == [0, 2, 4, 5]


def test_program_is_left_alone_where_nothing_is_dead() -> None:
    """Without dead code, nothing moves and nothing is said to."""
    report = run("dce", "r0 = *(u32 *)(r1 + 0); if r0 == 0 goto out; r0 = 1; out: exit").report
    assert (report.jumps_moved, report.rows_moved, report.rows_gone) == (0, 0, 0)
    assert report.passes[0].deleted == report.passes[0].modified == 0


def test_everything_deleted_before_is_no_trouble() -> None:
    """An empty list has nothing to remove."""
    patches = PatchList(Program(isa.exit_()))
    patches.delete(0)
    Dce().run(patches)
    assert len(patches) == 0


@pytest.mark.parametrize("text", ["dce,dce", "dce,nops,dce,nops"])
def test_second_run_finds_nothing(text: str) -> None:
    """What dce leaves, it leaves for good."""
    before = "r1 = 1; if r1 == 0 goto a; r2 = 1; a: if r2 != 1 goto b; goto c; b: r3 = 1; c: exit"
    reports = Pipeline.parse(text).run(assemble(before)).report.passes
    assert [one.deleted for one in reports[len(reports) // 2 :]] == [0] * (len(reports) // 2)


def test_decided_branch_keeps_the_policy_of_its_rows() -> None:
    """A branch with a row of any OWN table is not changed in place, whatever the policy."""
    drops = table([1], Anchor.OWN, on_replace=OnReplace.DROP)
    assert_unchanged(assemble(DECIDABLE).with_tables(mine=drops), "dce")
