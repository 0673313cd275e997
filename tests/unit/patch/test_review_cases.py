"""The cases that the review of the 2019 patch list asked about, and what was once wrong."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import LostTargetError, ReachError
from bpfpatch.isa import concat, exit_, ja, jump, mov
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import DELETED, FIELD_LIMITS, LOST, REPLACED, Program
from support.cases.rewrite import assert_rewrite, labels, program

LOOP = """
loop:
    r1 -= 1
    if r1 != 0 goto loop
    exit
"""


def test_back_edge_skips_a_prologue():
    """A jump to a subprog's first instruction does not run prepended code again."""
    assert_rewrite(
        LOOP,
        lambda p, at: p.prepend(at.loop, Body.asm("r6 = 0")),
        """
            r6 = 0
        loop:
            r1 -= 1
            if r1 != 0 goto loop
            exit
        """,
    )


def test_back_edge_runs_what_is_inserted_before_a_loop_head():
    """Code that must run each time round captures the back edge."""
    assert_rewrite(
        LOOP,
        lambda p, at: p.insert_before(at.loop, Body.asm("r6 += 1")),
        """
        loop:
            r6 += 1
            r1 -= 1
            if r1 != 0 goto loop
            exit
        """,
    )


def test_prologue_runs_on_every_call():
    """A call reaches what is prepended to a subprog, a jump to its first instruction does not."""
    assert_rewrite(
        """
            call f
            exit
        f:  r1 -= 1
            if r1 != 0 goto f
            exit
        """,
        lambda p, at: p.prepend(at.f, Body.asm("r1 = 9")),
        """
            call f
            exit
        f:  r1 = 9
        loop:
            r1 -= 1
            if r1 != 0 goto loop
            exit
        """,
    )


def test_two_labels_on_one_instruction():
    """Two names for one place move together, and both rows stay."""
    remap = assert_rewrite(
        """
            if r1 == 1 goto one
            if r1 == 2 goto two
            exit
        one:
        two:
            r0 = 1
            exit
        """,
        lambda p, at: p.insert_before(at.one, Body.asm("r0 = 7")),
        """
            if r1 == 1 goto both
            if r1 == 2 goto both
            exit
        both:
            r0 = 7
            r0 = 1
            exit
        """,
    )
    assert remap.land[3] == 3


def test_two_labels_meet_on_one_instruction():
    """Jumps to two places meet on one instruction when what lies between is deleted."""
    assert_rewrite(
        """
            if r1 == 1 goto one
            if r1 == 2 goto two
            exit
        one:
            r0 = 1          // case one
        two:
            r0 = 2          // case two
            exit
        """,
        lambda p, at: p.delete([at.one, at.two]),
        """
            if r1 == 1 goto out
            if r1 == 2 goto out
            exit
        out:
            exit            // case one, case two
        """,
    )


TWO = """
    .globl f
        r0 = 1
        exit
    f:  r0 = 2
        exit
"""


def test_insert_after_a_subprogs_last_instruction():
    """What goes in behind a subprog's last instruction belongs to that subprog."""
    remap = assert_rewrite(
        TWO,
        lambda p, at: p.insert_after(1, Body.asm("r0 = 9; exit")),
        """
        .globl f
            r0 = 1
            exit
            r0 = 9
            exit
        f:  r0 = 2
            exit
        """,
    )
    assert remap.entry[2] == 4


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "replace"])
def test_edit_at_a_subprogs_first_instruction(verb):
    """What goes in at a subprog's first instruction belongs to that subprog."""
    body = "r0 = 9" if verb != "replace" else "r0 = 9; @orig"
    assert_rewrite(
        TWO,
        lambda p, at: getattr(p, verb)(at.f, Body.asm(body)),
        """
        .globl f
            r0 = 1
            exit
        f:  r0 = 9
            r0 = 2
            exit
        """,
    )


def test_edits_at_both_sides_of_a_boundary():
    """A body behind one subprog and a body in front of the next do not mix."""

    def edit(p, at):
        p.insert_before(at.f, Body.asm("r0 = 8"))
        p.insert_after(1, Body.asm("r0 = 9; exit"))

    assert_rewrite(
        TWO,
        edit,
        """
        .globl f
            r0 = 1
            exit
            r0 = 9
            exit
        f:  r0 = 8
            r0 = 2
            exit
        """,
    )


def test_delete_a_subprogs_first_instruction():
    """A subprog then starts at its next instruction, and calls go there."""
    assert_rewrite(
        """
            call f
            exit
        f:  r0 = 1
            r0 = 2
            exit
        """,
        lambda p, at: p.delete(at.f),
        """
            call f
            exit
        f:  r0 = 2
            exit
        """,
    )


def test_delete_a_subprogs_last_instruction():
    """The next subprog starts where it did: nothing slides into it."""
    assert_rewrite(
        TWO,
        lambda p, at: p.delete(1),
        """
        .globl f
            r0 = 1
        f:  r0 = 2
            exit
        """,
    )


def test_delete_everything_between_two_jumps():
    """A jump over deleted code reaches what follows it; one into it does so too."""
    assert_rewrite(
        """
            if r1 == 1 goto inner
            goto end
            r0 = 1
        inner:
            r0 = 2
            r0 = 3
        end:
            goto end
        """,
        lambda p, at: p.delete([2, 3, 4]),
        """
            if r1 == 1 goto end
            goto end
        end:
            goto end
        """,
    )


def test_replace_one_ld_imm64_by_one_slot():
    """Two slots become one, and jumps over them shrink."""
    remap = assert_rewrite(
        """
            if r1 == 0 goto out
            r0 = 0x1122334455667788 ll
        out:
            exit
        """,
        lambda p, at: p.replace(1, Body.asm("r0 = 1")),
        """
            if r1 == 0 goto out
            r0 = 1
        out:
            exit
        """,
    )
    assert remap.own.tolist() == [0, REPLACED, DELETED, 2]
    assert remap.land.tolist() == [0, 1, LOST, 2]


def test_replace_one_slot_by_an_ld_imm64():
    """One slot becomes two, and jumps over it grow."""
    remap = assert_rewrite(
        """
            if r1 == 0 goto out
            r0 = 1
        out:
            exit
        """,
        lambda p, at: p.replace(1, Body.asm("r0 = 0x1122334455667788 ll")),
        """
            if r1 == 0 goto out
            r0 = 0x1122334455667788 ll
        out:
            exit
        """,
    )
    assert remap.site.tolist() == [0, 1, 1, 2]


def test_jump_to_a_deleted_run_at_a_subprogs_end():
    """Such a jump has nowhere to go, and never slides into the next subprog."""
    text = """
        .globl f
            if r1 == 1 goto tail
            goto out
        tail:
            r0 = 1
        out:
            exit
        f:  r0 = 2
            exit
        """
    patches = PatchList(program(text))
    at = labels(text)
    patches.delete([at.tail, at.out])
    with pytest.raises(LostTargetError) as caught:
        patches.linearize()
    assert caught.value.slot == 0
    assert [other.slot for other in caught.value.others] == [1]
    assert "(and 1 more of this kind)" in str(caught.value)


def test_self_jump_stays_one():
    """A distance of -1 is a jump to itself, and no sentinel."""
    assert_rewrite(
        """
            r0 = 0
        self:
            goto self
        """,
        lambda p, at: p.insert_before(0, Body.asm("r1 = 1")),
        """
            r1 = 1
            r0 = 0
        self:
            goto self
        """,
    )


def test_self_jump_reaches_what_is_inserted_before_it():
    """A self-jump is a back edge like any other."""
    assert_rewrite(
        "self: goto self",
        lambda p, at: p.insert_before(at.self, Body.asm("r1 += 1")),
        """
        loop:
            r1 += 1
            goto loop
        """,
    )


def test_self_jump_past_a_prologue():
    """A self-jump does not run a prologue."""
    assert_rewrite(
        "self: goto self",
        lambda p, at: p.prepend(at.self, Body.asm("r1 += 1")),
        """
            r1 += 1
        self:
            goto self
        """,
    )


def test_replacing_a_self_jump_by_a_body_that_keeps_it():
    """A self-jump whose body takes its place goes to the body's first instruction."""
    assert_rewrite(
        "self: goto self",
        lambda p, at: p.replace(at.self, Body.asm("r1 += 1; @orig; r2 = 2")),
        """
        loop:
            r1 += 1
            goto loop
            r2 = 2
        """,
    )


def test_body_jumps_out():
    """A body may jump to any instruction of its subprog, forwards and backwards."""

    def edit(p, at):
        p.insert_before(
            at.middle,
            Body.asm("if r2 == 0 goto top; if r2 == 1 goto out", top=at.top, out=at.out),
        )

    assert_rewrite(
        """
        top:
            r0 = 0
        middle:
            r0 += 1
            r0 += 2
        out:
            exit
        """,
        edit,
        """
        top:
            r0 = 0
            if r2 == 0 goto top
            if r2 == 1 goto out
            r0 += 1
            r0 += 2
        out:
            exit
        """,
    )


# ---- distances -------------------------------------------------------------------------------


def forward(distance: int, opcode: np.ndarray) -> PatchList:
    """A reference forwards over a gap of this many slots, one of them inserted."""
    n_gap = distance - 1
    insns = concat([opcode, np.tile(mov(0, 0), n_gap), exit_()])
    field = "imm" if insns["code"][0] in (isa.GOTOL, isa.CALL) else "off"
    insns[field][0] = n_gap
    patches = PatchList(Program(insns))
    patches.insert_after(1, Body.of(mov(1, 1)))
    return patches


def backward(distance: int, opcode: np.ndarray) -> PatchList:
    """A reference back to slot 0, over a gap with one instruction inserted."""
    n_gap = -distance - 2
    insns = concat([mov(0, 0), np.tile(mov(0, 0), n_gap - 1), opcode, exit_()])
    field = "imm" if insns["code"][n_gap] in (isa.GOTOL, isa.CALL) else "off"
    insns[field][n_gap] = -n_gap - 1
    patches = PatchList(Program(insns))
    patches.insert_after(1, Body.of(mov(1, 1)))
    return patches


@pytest.mark.parametrize("opcode", [ja(0), jump("==", 1, 1, 0), isa.may_goto(0)])
def test_distance_of_32767_fits(opcode):
    """The farthest jump forwards of 16 bits."""
    new, _ = forward(32767, opcode).linearize()
    assert new.insns["off"][0] == 32767
    assert new.refs.target[0] == 32768


@pytest.mark.parametrize("opcode", [ja(0), jump("==", 1, 1, 0), isa.may_goto(0)])
def test_distance_of_32768_does_not_fit(opcode):
    """One slot more is an error where it may not be relaxed, and no wrong program."""
    with pytest.raises(ReachError) as caught:
        forward(32768, opcode).linearize(None)
    assert (caught.value.slot, caught.value.target.slot) == (0, 32769)
    assert (caught.value.distance, caught.value.limit) == (32768, 32767)


@pytest.mark.parametrize("opcode", [ja(0), jump("==", 1, 1, 0)])
def test_distance_of_minus_32768_fits(opcode):
    """The farthest jump back of 16 bits."""
    new, _ = backward(-32768, opcode).linearize()
    assert new.insns["off"][32767] == -32768
    assert new.refs.target[0] == 0


@pytest.mark.parametrize("opcode", [ja(0), jump("==", 1, 1, 0)])
def test_distance_of_minus_32769_does_not_fit(opcode):
    """One slot more is an error backwards as well."""
    with pytest.raises(ReachError) as caught:
        backward(-32769, opcode).linearize(None)
    assert (caught.value.slot, caught.value.target.slot) == (32768, 0)
    assert (caught.value.distance, caught.value.limit) == (-32769, -32768)


def test_gotol_holds_more_than_16_bits():
    """A gotol's distance is 32 bits."""
    new, _ = forward(40000, isa.gotol(0)).linearize()
    assert new.insns["imm"][0] == 40000
    assert new.insns["off"][0] == 0


@pytest.mark.parametrize(
    ("kind", "opcode"),
    [
        (isa.RefKind.JUMP32, isa.gotol(0)),
        (isa.RefKind.CALL, isa.call_subprog(0)),
    ],
)
@pytest.mark.parametrize(("distance", "fits"), [(20, True), (21, False), (-20, True), (-21, False)])
def test_limit_of_32_bits(monkeypatch, kind, opcode, distance, fits):
    """A 32-bit field has its limit too: shown on a smaller one, since no program is 16 GB long."""
    monkeypatch.setitem(FIELD_LIMITS, kind, (-20, 20))
    patches = forward(distance, opcode) if distance > 0 else backward(distance, opcode)
    if fits:
        new, _ = patches.linearize()
        assert distance in new.insns["imm"]
    else:
        with pytest.raises(ReachError) as caught:
            patches.linearize()
        assert caught.value.limit == (20 if distance > 0 else -20)
        assert "make the program smaller" in str(caught.value)


def test_field_limits_are_those_of_the_encoding():
    """RFC 9669, section 3: ``offset`` is a signed 16-bit, ``imm`` a signed 32-bit field."""
    assert FIELD_LIMITS[isa.RefKind.JUMP16] == (-32768, 32767)
    for kind in (isa.RefKind.JUMP32, isa.RefKind.CALL, isa.RefKind.FUNC):
        assert FIELD_LIMITS[kind] == (-2147483648, 2147483647)
