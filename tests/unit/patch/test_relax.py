"""Far jumps made to fit, as text before and after; a short reach stands for that of 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import OptionError, ReachError
from bpfpatch.patch import Body, PatchList, Relax
from bpfpatch.program import INSERTED, Column, Program, Subprogs
from support.cases.rewrite import assert_rewrite, program
from support.models.relaxing import assert_same_edges

GAP = "r1 = 1; r2 = 2; r3 = 3; r4 = 4\n"
"""Four slots."""
NO_EDIT = (lambda p, at: None,)


def assert_relaxed(before: str, after: str, how: str = "islands", reach: int = 4):
    """Linearize without an edit, with a short reach."""
    return assert_rewrite(before, lambda p, at: None, after, Relax(how, reach))


# ---- gotol -----------------------------------------------------------------------------------


def test_goto_becomes_gotol():
    """A far goto becomes a gotol in its place, forward and back."""
    assert_relaxed(
        f"back: goto out\n {GAP} goto back\n out: exit",
        f"back: gotol out\n {GAP} gotol back\n out: exit",
        "gotol",
    )


@pytest.mark.parametrize(
    ("sign", "opposite"),
    [("==", "!="), (">", "<="), (">=", "<"), ("s>", "s<="), ("s>=", "s<")],
)
@pytest.mark.parametrize("kind", "rw")
@pytest.mark.parametrize("right", ["5", "{}3"])
def test_condition_is_turned_round_a_gotol(sign, opposite, kind, right):
    """A far conditional jump becomes its opposite, which leads around a gotol."""
    right = right.format(kind)
    for one, other in ((sign, opposite), (opposite, sign)):
        assert_relaxed(
            f"if {kind}1 {one} {right} goto out\n {GAP} out: exit",
            f"if {kind}1 {other} {right} goto on\n gotol out\n on: {GAP} out: exit",
            "gotol",
        )


@pytest.mark.parametrize("test", ["if r1 & 5 goto", "if w1 & w2 goto", "may_goto"])
def test_what_has_no_opposite_goes_to_the_gotol(test):
    """A jump without an opposite stays as it is, and gets a gotol to go to."""
    assert_relaxed(
        f"{test} out\n {GAP} out: exit",
        f"{test} far\n goto on\n far: gotol out\n on: {GAP} out: exit",
        "gotol",
    )


def test_row_forbids_a_change():
    """An instruction that a row of a table belongs to keeps all but its distance."""
    assert_relaxed(
        f"if r1 == 0 goto out // reloc a\n goto out // reloc b\n {GAP} out: exit",
        f"""if r1 == 0 goto far // reloc a
            goto on
        far: gotol out
        on: goto far2 // reloc b
        far2: gotol out
        {GAP} out: exit""",
        "gotol",
    )


def test_attached_row_forbids_a_change():
    """So does a row that an edit has attached."""
    patches = PatchList(program(f"r0 = 0 // reloc a\n goto out\n {GAP} out: exit"))
    patches.attach("reloc", 1, "b")
    new, remap = patches.linearize(Relax("gotol", 4))
    assert new.tables["reloc"].rows.tolist() == ["a", "b"]
    assert remap.modified.size == 0
    assert new.insns["code"].tolist()[1:3] == [isa.JA, isa.GOTOL]


def test_row_that_may_go_forbids_nothing():
    """A row with the policy DROP, its own or attached, lets its instruction be changed."""
    given = program(f"goto out // note a\n goto out\n {GAP} out: exit")
    patches = PatchList(given)
    patches.attach("note", 1, "b")
    new, _ = patches.linearize(Relax("gotol", 4))
    assert new.insns["code"].tolist()[:2] == [isa.GOTOL, isa.GOTOL]
    assert new.tables["note"].rows.tolist() == ["a", "b"]


def test_growth_makes_others_far():
    """A jump that fits until another one has been relaxed is relaxed as well."""
    assert_relaxed(
        f"if r1 == 0 goto out\n if r2 == 0 goto out\n {GAP} out: exit",
        f"""if r1 != 0 goto one
            gotol out
        one: if r2 != 0 goto two
            gotol out
        two: {GAP} out: exit""",
        "gotol",
    )


@pytest.mark.parametrize("n_jumps", [20, 50])
def test_jumps_that_push_each_other_one_by_one(n_jumps):
    """However long a row of jumps of which each makes the next one far, all come to fit."""
    code = []
    for number in range(n_jumps):
        code.append(f"if r1 == 0 goto t{number}\nr2 = 2\n")
        if number >= 10:
            code.append(f"t{number - 10}: r3 = 3\n")
    code += [f"t{number}: r4 = 4\n" for number in range(n_jumps - 10, n_jumps)]
    # The first is too far from the start; every one after it is near by one slot.
    text = "".join(code) + "exit"
    plain = program(text)
    for reach in range(24, 34):
        done = PatchList(plain).linearize(Relax("gotol", reach))
        assert_same_edges(plain, done)


def test_condition_at_a_subprogs_end():
    """A conditional jump that nothing follows cannot be relaxed by gotol, and the error says so."""
    patches = PatchList(program(f"goto on\n back: r0 = 0\n {GAP} on: if r1 == 0 goto back"))
    with pytest.raises(ReachError, match="end the subprog with exit or goto"):
        patches.linearize(Relax("gotol", 4))


# ---- islands ---------------------------------------------------------------------------------


def test_island_behind_a_goto():
    """An island stands where control cannot fall into it, if there is such a place in reach."""
    assert_relaxed(
        f"if r1 == 0 goto out\n {GAP * 14} exit\n r5 = 5\n r6 = 6\n {GAP} out: exit",
        f"""if r1 == 0 goto far\n {GAP * 14} exit
        far: goto out
            r5 = 5\n r6 = 6\n {GAP} out: exit""",
        reach=61,
    )


def test_island_with_a_jump_around_it():
    """Elsewhere a jump leads around it."""
    assert_relaxed(
        f"if r1 == 0 goto out\n {GAP} {GAP} {GAP} {GAP} out: exit",
        f"""if r1 == 0 goto far\n {GAP} {GAP} r1 = 1; r2 = 2; r3 = 3
            goto on
        far: goto out
        on: r4 = 4\n {GAP} out: exit""",
        reach=13,
    )


def test_island_for_a_back_edge():
    """Islands serve jumps that lead back, also those of a pseudo-condition."""
    for test in ("if r1 != 0 goto", "may_goto", "goto"):
        assert_relaxed(
            f"r0 = 0\n again: {GAP} {GAP} {GAP} {test} again\n exit",
            f"""r0 = 0
            again: r1 = 1; r2 = 2
                goto on
            far: goto again
            on: r3 = 3; r4 = 4\n {GAP} {GAP} {test} far
                exit""",
            reach=12,
        )


def test_islands_are_chained_and_shared():
    """All jumps to one target from one side share one chain of islands."""
    before = program(
        f"if r1 == 0 goto out\n {GAP} if r1 == 1 goto out\n {GAP * 3} if r1 == 2 goto out\n"
        f"{GAP * 3} out: exit"
    )
    done = PatchList(before).linearize(Relax("islands", 16))
    assert done.relaxed is not None
    assert (done.relaxed.n_jumps, done.relaxed.n_islands) == (2, 2)
    assert_same_edges(before, done)
    assert str(done.relaxed) == (
        "relaxed 2 jumps too far for 16 bits by 2 islands, 2 of them led around"
    )


def test_island_is_no_part_of_another_subprog():
    """Islands stay in the subprog of their jump, and what starts there stays its start."""
    before = program(
        f"call f\n exit\n f: if r1 == 0 goto out\n r5 = 5\n {GAP} {GAP} out: exit\n g: exit"
    )
    before = Program(
        before.insns, Subprogs.from_starts({0: "main", 2: "f", 13: "g"}), before.sections
    )
    done = PatchList(before).linearize(Relax("islands", 8))
    assert done.program.subprogs.start.tolist() == [0, 2, 15]
    assert_same_edges(before, done)


def test_island_at_a_subprogs_end():
    """The last place of a subprog is one of those that control cannot fall into."""
    text = f"main: goto on\n back: exit\n {GAP} {GAP} on: r1 = 1\n if r1 == 0 goto back\n r2 = 2\n"
    before = program(text + "goto back\n f: exit")
    before = Program(before.insns, Subprogs.from_starts({0: "main", 14: "f"}))
    done = PatchList(before).linearize(Relax("islands", 9))
    assert_same_edges(before, done)


def test_wide_instructions_stay_whole():
    """No island comes between the two slots of an ld_imm64."""
    wide = "r1 = 0x100000000 ll\n"
    before = program(f"if r1 == 0 goto out\n {wide * 30} out: exit")
    for reach in range(5, 30):
        done = PatchList(before).linearize(Relax("islands", reach))
        assert_same_edges(before, done)


def test_jump_out_of_its_subprog():
    """A jump between subprogs, which the input had, is relaxed by gotol, and not by islands."""
    code = program(f"goto out\n {GAP} {GAP} out: exit").insns
    given = Program(code, Subprogs.from_starts({0: "a", 5: "b"}))
    with pytest.raises(ReachError, match="allow cpu v4") as caught:
        PatchList(given).linearize(Relax("islands", 4))
    assert (caught.value.slot, caught.value.distance, caught.value.limit) == (0, 8, 3)
    new, _ = PatchList(given).linearize(Relax("gotol", 4))
    assert new.insns["code"][0] == isa.GOTOL


@pytest.mark.parametrize(("n_jumps", "n_between"), [(620, 2500), (600, 6000)])
def test_many_islands_side_by_side(n_jumps, n_between):
    """Three jumps in ten of a reach's slots may cross one place, and go to targets of their own."""
    jumps = "".join(f"if r1 == {k} goto t{k}\n" for k in range(n_jumps))
    ends = "".join(f"t{k}: r0 = {k}\n" for k in range(n_jumps))
    before = program(f"{jumps} {'r0 = 0; ' * n_between} {ends} exit")
    assert_same_edges(before, PatchList(before).linearize(Relax("islands", 2048)))


def test_too_many_islands():
    """Where islands push each other out of reach, the error says so and what helps."""
    jumps = "".join(f"if r1 == {k} goto t{k}\n" for k in range(40))
    ends = "".join(f"t{k}: r0 = {k}\n" for k in range(40))
    patches = PatchList(program(f"{jumps} {GAP * 8} {ends} exit"))
    with pytest.raises(ReachError, match=r"cross here .* allow cpu v4") as caught:
        patches.linearize(Relax("islands", 16))
    assert caught.value.limit == 15


# ---- what sits on instructions ---------------------------------------------------------------


def test_lines_of_islands():
    """An island has the line of its jump, and what follows it goes on with its own."""
    assert_relaxed(
        f"if r1 == 0 goto out // line 3\n r1 = 1 // line 4\n {GAP} {GAP} {GAP} out: exit // line 5",
        f"""if r1 == 0 goto far // line 3
            r1 = 1 // line 4\n {GAP} {GAP} r1 = 1
            goto on
        far: goto out // line 3
        on: r2 = 2 // line 4
            r3 = 3; r4 = 4\n out: exit // line 5""",
        reach=12,
    )


def test_lines_of_islands_beside_others():
    """Where a record stands already, none is put; nor is one again for the next island."""
    gap = "r6 = 6\n" * 11
    assert_relaxed(
        f"if r1 == 0 goto a // line 3\n if r1 == 1 goto b\n {gap} r7 = 7\n r8 = 8 // line 8\n"
        f"{gap[7:]} a: r0 = 0 // line 9\n b: exit",
        f"""if r1 == 0 goto fara // line 3
            if r1 == 1 goto farb\n {gap}
            r7 = 7
            goto on
        fara: goto a
        farb: goto b
        on: r8 = 8 // line 8\n {gap[7:]}
        a: r0 = 0 // line 9
        b: exit""",
        reach=16,
    )


def test_jump_without_a_line():
    """A jump in front of the first record has no line to give."""
    before = program(f"if r1 == 0 goto out\n {GAP * 2} r5 = 5 // line 4\n {GAP * 2} out: exit")
    done = PatchList(before).linearize(Relax("islands", 8))
    lines = done.program.tables["line_info"]
    assert (lines.rows["line_col"] >> 10).tolist() == [4]
    assert_same_edges(before, done)


def test_lines_of_a_subprog_without_any():
    """A line of the subprog in front is none of this one's."""
    before = program(f"call f // line 1\n exit\n f: if r1 == 0 goto out\n {GAP * 3} out: exit\n")
    done = PatchList(before).linearize(Relax("islands", 8))
    assert len(done.program.tables["line_info"]) == 1


def test_rows_columns_and_provenance():
    """Rows follow, columns are filled, and each island says which jump and pass it is of."""
    given = program(
        f"r9 = 9 // aux 7\n if r1 == 0 goto out // aux 8\n {GAP * 3} out: exit // case c"
    )
    given = given.with_columns(**given.columns, narrow=Column(np.zeros(15, bool), isa.is_jump))
    patches = PatchList(given)
    patches.aux("aux")[14] = 9
    with patches.as_pass("mine"):
        patches.insert_before(0, Body.asm("r8 = 8"))
    new, remap = patches.linearize(Relax("islands", 9))
    inserted = np.flatnonzero(remap.orig == INSERTED).tolist()
    assert remap.passes == ("", "mine", "relax")
    assert [remap.passes[k] for k in remap.origin[inserted]] == ["mine", "relax", "relax"]
    assert remap.site[inserted].tolist()[::2] == [0, 1]
    assert [new.columns["aux"].values[k] for k in (1, 2, -1)] == [7, 8, 9]
    assert new.columns["narrow"].values[inserted].tolist() == [False, True, True]
    assert new.tables["case"].insn.tolist() == [len(new) - 1]
    assert remap.own[14] == remap.land[14] == len(new) - 1


def test_computed_value_of_a_jump_that_is_turned():
    """A column's value is computed from an inserted jump as it came in, not as relaxed."""
    given = program(f"r0 = 0\n {GAP} out: exit")
    patches = PatchList(given.with_columns(code=Column(np.zeros(6, int), lambda i: i["code"])))
    patches.insert_before(0, Body.asm("if r1 == 0 goto out", out=5))
    new, _ = patches.linearize(Relax("gotol", 4))
    assert new.insns["code"][:2].tolist() == [0x55, isa.GOTOL]
    assert new.columns["code"].values[:2].tolist() == [0x15, isa.GOTOL]


def test_changed_jumps_are_said_to_be():
    """A goto that became a gotol, and a condition that was turned, count as changed."""
    given = program(f"goto out\n if r1 == 0 goto out\n {GAP} out: exit")
    _, remap = PatchList(given).linearize(Relax("gotol", 4))
    assert remap.modified.tolist() == [0, 1]
    assert not remap.is_identity


def test_list_stays_as_it_is():
    """Relaxing is done for a result: the list goes on without it."""
    patches = PatchList(program(f"if r1 == 0 goto out\n {GAP * 3} out: exit"))
    first, _ = patches.linearize(Relax("islands", 8))
    assert len(patches) == 14
    again, _ = patches.linearize(Relax("islands", 8))
    assert first.to_bytes() == again.to_bytes()
    assert patches.linearize(None).remap.is_identity


# ---- what is asked for -----------------------------------------------------------------------


def far_jump(more: str = "") -> PatchList:
    """An if over more than 16 bits hold."""
    text = f"if r1 == 0 goto out\n {more}\n r2 = 2\n out: exit"
    patches = PatchList(program(text))
    patches.insert_before(1, Body.of(*[isa.mov(2, 2)] * 33_000))
    return patches


def test_auto_takes_what_the_program_needs_anyway():
    """By itself, gotol is taken where something else needs cpu v4 already, else islands."""
    done = far_jump().linearize()
    assert str(done.relaxed) == (
        "relaxed 1 jump too far for 16 bits by 1 island, 1 of them led around"
    )
    done = far_jump("r1 = bswap16 r1").linearize()
    assert str(done.relaxed) == (
        "relaxed 1 jump too far for 16 bits by gotol (cpu v4), with 1 more instructions"
    )


def test_nothing_far_is_nothing_relaxed():
    """Where all jumps fit, the result says nothing of relaxing."""
    done = PatchList(program("goto +0; exit")).linearize()
    assert done.relaxed is None
    assert done.remap.passes == ("",)


def test_refused_on_request():
    """With None, a far jump is an error whose advice is true."""
    patches = far_jump()
    with pytest.raises(ReachError, match=r"without relax=None \(--no-relax\) it is made to fit"):
        patches.linearize(None)
    patches.linearize()


@pytest.mark.parametrize("wrong", ["trampoline", 3, ""])
def test_unknown_way(wrong):
    """There is gotol, islands, auto and None."""
    with pytest.raises(OptionError, match="relax is auto, gotol, islands or None"):
        PatchList(program("exit")).linearize(wrong)


@pytest.mark.parametrize("reach", [0, 3, 32769])
def test_unknown_reach(reach):
    """A reach is at most that of 16 bits."""
    with pytest.raises(OptionError, match="a reach is 4 to 32768 slots"):
        Relax("auto", reach)
