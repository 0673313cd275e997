"""Differences between programs."""

from __future__ import annotations

import json

import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program, Remap
from bpfpatch.report import Diff, Op, diff_programs

LOOP = """
entry:
  r1 = 5
again:
  r1 += -1
  if r1 != 0 goto again
  call helper
  exit
helper:
  r0 = 7
  exit
"""


def shown(diff: Diff) -> list[str]:
    """The changed lines: sign and instruction."""
    return [
        line[0] + " " + line[8:].strip()
        for kind, line in diff.lines(0)
        if kind in ("removed", "added")
    ]


def counts(diff: Diff) -> tuple[int, int, int]:
    """Instructions added, removed and changed."""
    return diff.count(Op.ADDED), diff.count(Op.REMOVED), diff.count(Op.CHANGED)


def test_a_program_equals_itself() -> None:
    """A program has no difference to itself, and its diff no text."""
    program = assemble(LOOP)
    diff = diff_programs(program, program)
    assert diff.is_equal
    assert diff.text() == ""


def test_show_all_prints_equal_functions() -> None:
    """With show_all, what is the same is printed as well."""
    program = assemble(LOOP)
    assert "helper" in diff_programs(program, program).text(show_all=True)


def test_moved_jumps_and_calls_are_equal() -> None:
    """A jump or call over inserted code is the same one: only what was put in is a change."""
    new = assemble(LOOP.replace("if r1 != 0", "r3 = 9\n if r1 != 0"))
    diff = diff_programs(assemble(LOOP), new)
    assert shown(diff) == ["+ r3 = 0x9"]
    assert [function.status for function in diff.functions] == ["changed", "same"]


def test_jump_to_other_place_is_a_change() -> None:
    """A jump that leads elsewhere is a change, though its instruction has nothing else new."""
    new = assemble(LOOP.replace("goto again", "goto entry"))
    diff = diff_programs(assemble(LOOP), new)
    assert counts(diff) == (0, 0, 1)
    assert shown(diff) == ["- if r1 != 0x0 goto L1", "+ if r1 != 0x0 goto L0"]


def test_jump_into_code_before_its_target_is_equal() -> None:
    """A jump that now runs what was inserted before its target still leads to the same place."""
    new = assemble(LOOP.replace("again:", "again: r4 = 1"))
    assert shown(diff_programs(assemble(LOOP), new)) == ["+ r4 = 0x1"]


def test_call_of_another_function_is_a_change() -> None:
    """Calls are compared by what they call."""
    old = assemble(LOOP + "other:\n r0 = 8\n exit\n.globl other\n")
    new = assemble(
        LOOP.replace("call helper", "call other") + "other:\n r0 = 8\n exit\n.globl helper\n"
    )
    diff = diff_programs(old, new)
    assert [line[:6] for line in shown(diff)] == ["- call", "+ call"]


def test_functions_are_matched_by_name() -> None:
    """Functions in another order are the same functions."""
    old = assemble("a: call b\n call c\n exit\nb: r0 = 1\n exit\nc: r0 = 2\n r1 = 3\n exit\n")
    new = assemble("a: call b\n call c\n exit\nc: r0 = 2\n r1 = 3\n exit\nb: r0 = 1\n exit\n")
    assert diff_programs(old, new).is_equal


def test_added_and_removed_functions() -> None:
    """A function that only one side has is shown whole."""
    old = assemble("a: call b\n exit\nb: r0 = 1\n exit\n")
    new = assemble("a: call x\n exit\nx: r0 = 1\n exit\n")
    status = {function.name: function.status for function in diff_programs(old, new).functions}
    assert status == {"a": "changed", "b": "removed", "x": "added"}


def test_nameless_functions_are_matched_by_place() -> None:
    """A function without a name is compared with what stands in its place."""
    text = "r1 = 1\nr2 = 2\nexit\n"
    assert diff_programs(assemble(text), assemble(f"named:\n{text}")).is_equal


def test_provenance_tells_twins_apart() -> None:
    """With a remap it is certain which of two equal instructions was put in."""
    old = assemble("r1 = 1\nr1 = 1\nexit\n")
    patches = PatchList(old)
    patches.insert_after(0, Body.asm("r1 = 1"))
    new, remap = patches.linearize()
    (function,) = diff_programs(old, new, remap).functions
    rows = list(zip(function.op.tolist(), function.new_slot.tolist(), strict=True))
    assert rows == [(Op.EQUAL, 0), (Op.ADDED, 1), (Op.EQUAL, 2), (Op.EQUAL, 3)]


def test_provenance_shows_a_change_in_place() -> None:
    """An instruction that was modified is one change, not a removal and an addition."""
    old = assemble("r1 = 1\nexit\n")
    patches = PatchList(old)
    patches.modify(0, imm=2)
    new, remap = patches.linearize()
    diff = diff_programs(old, new, remap)
    assert counts(diff) == (0, 0, 1)
    assert shown(diff) == ["- r1 = 0x1", "+ r1 = 0x2"]


def test_provenance_names_the_pass() -> None:
    """What a pass put in bears its name."""
    old = assemble("exit\n")
    patches = PatchList(old)
    with patches.as_pass("mine"):
        patches.insert_before(0, Body.asm("r0 = 0"))
    new, remap = patches.linearize()
    assert "; mine" in diff_programs(old, new, remap).text()


def test_deleted_subprog_is_removed() -> None:
    """With a remap, a deleted function is shown as removed."""
    old = assemble(LOOP)
    patches = PatchList(old)
    patches.delete(patches.find(isa.is_subprog_call))
    patches.delete_subprog("helper")
    new, remap = patches.linearize()
    diff = diff_programs(old, new, remap)
    assert [function.status for function in diff.functions] == ["changed", "removed"]


def test_foreign_remap_is_refused() -> None:
    """A remap between other programs is an error."""
    program = assemble("exit\n")
    with pytest.raises(ValueError, match="leads from 5 slots"):
        diff_programs(program, program, Remap.identity(5))


def test_names_of_relocations_count() -> None:
    """Two instructions that differ in what their relocation names differ."""
    program = assemble("r1 = 0 ll\nexit\n")
    diff = diff_programs(program, program, old_names={0: "flows"}, new_names={0: "stats"})
    assert counts(diff) == (1, 1, 0)
    assert "<flows>" in diff.text()


def test_both_slots_of_an_ld_imm64_count() -> None:
    """A change in the upper half of a 64-bit constant is a change."""
    old, new = assemble("r1 = 0x100000001 ll\nexit\n"), assemble("r1 = 0x200000001 ll\nexit\n")
    assert counts(diff_programs(old, new)) == (1, 1, 0)


def test_empty_programs_are_equal() -> None:
    """There is nothing to differ in programs without instructions."""
    empty = Program.from_bytes(b"")
    assert diff_programs(empty, empty).is_equal


def test_context_is_bounded() -> None:
    """As many equal instructions are shown around a change as asked for."""
    old = assemble("\n".join(f"r1 = {n}" for n in range(50)) + "\nexit\n")
    new = assemble("\n".join(f"r1 = {n if n != 25 else 99}" for n in range(50)) + "\nexit\n")
    lines = list(diff_programs(old, new).lines(2))
    assert [kind for kind, _ in lines].count("same") == 4
    assert [line.strip() for kind, line in lines if kind == "skipped"] == ["... 23 equal"] * 2


def test_json_has_the_counts_and_the_lines() -> None:
    """The JSON form names counts, functions and changed lines, and can be dumped."""
    new = assemble(LOOP.replace("r1 = 5", "r1 = 6"))
    value = json.loads(json.dumps(diff_programs(assemble(LOOP), new).to_json()))
    assert (value["equal"], value["added"], value["removed"]) == (False, 1, 1)
    (first, second) = value["functions"]
    assert first["status"] == "changed"
    assert [line["text"] for line in first["lines"]] == ["r1 = 0x5", "r1 = 0x6"]
    assert second["lines"] == []


def jump(slot_off: int) -> Program:
    """Three instructions, the first a jump over this many slots."""
    insns = assemble("goto +0; r0 = 0; exit").insns.copy()
    insns["off"][0] = slot_off
    return Program.from_bytes(insns.tobytes())


@pytest.mark.parametrize(("one", "other"), [(-1, 50), (-1, -7), (50, 51), (-7, -8), (0, 50)])
def test_jumps_that_leave_the_program_are_told_apart(one: int, other: int) -> None:
    """A jump out of the program equals only one that leaves it at the same place."""
    assert not diff_programs(jump(one), jump(other)).is_equal
    assert diff_programs(jump(other), jump(other)).is_equal


def test_calls_that_leave_the_program_are_told_apart() -> None:
    """The same holds of calls."""
    far = [assemble("call f; exit; f: exit").insns.copy() for _ in range(2)]
    far[0]["imm"][0], far[1]["imm"][0] = 70, 71
    one, other = (Program.from_bytes(insns.tobytes()) for insns in far)
    assert not diff_programs(one, other).is_equal
    assert diff_programs(one, one).is_equal
