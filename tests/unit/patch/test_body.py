"""Bodies: local labels, the original, its target, the end, nodes; and what they may not hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import AsmError, EditError, OptionError
from bpfpatch.isa import call_subprog, concat, exit_, ja, jump, ld_func, ld_imm64, mov
from bpfpatch.patch import Body, PatchList, To
from support.cases.rewrite import assert_rewrite, program

HOLE = np.zeros(1, isa.INSN)

TEXT = """
        if r1 == 0 goto out
        r0 = 1
        call f
        r0 = 2
    out:
        exit
    f:  r0 = 3
        exit
"""


# ---- what a reference may mean ---------------------------------------------------------------


def test_local_labels():
    """A body may jump within itself, in both directions, and over the original."""
    assert_rewrite(
        TEXT,
        lambda p, at: p.replace(
            1,
            Body.asm("again: r2 += 1; if r2 == 5 goto over; @orig; over: if r2 < 9 goto again"),
        ),
        """
            if r1 == 0 goto out
        again:
            r2 += 1
            if r2 == 5 goto over
            r0 = 1
        over:
            if r2 < 9 goto again
            call f
            r0 = 2
        out:
            exit
        f:  r0 = 3
            exit
        """,
    )


def test_distances_count_within_the_body():
    """Without a label, a distance in a body counts its slots, as in any code."""
    patches = PatchList(program(TEXT))
    first = patches.insert_before(
        1, Body.of(jump("==", 1, 5, 3), ld_imm64(1, 5), mov(2, 2), mov(3, 3))
    )
    assert patches[first].target.node == first + 4


def test_distances_count_the_place_of_the_original():
    """The original's place is a slot of its own in a body's distances."""
    body = Body(concat([ja(1), HOLE, mov(1, 1), ja(-3)]), keeps=1)
    patches = PatchList(program(TEXT))
    first = patches.replace(1, body)
    assert patches[first].target.node == first + 1
    assert patches[first + 2].target.node == 1


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after"])
def test_orig_is_the_instruction_at_the_site(verb):
    """``@orig`` is the instruction itself, whatever is put in front of it."""
    patches = PatchList(program(TEXT))
    first = getattr(patches, verb)(1, Body.asm("if r3 == 0 goto @orig; r4 = 4"))
    assert patches[first].target.node == 1


def test_orig_in_a_body_that_keeps_it():
    """``@orig`` is the kept instruction, not what goes before it."""
    patches = PatchList(program(TEXT))
    first = patches.replace(1, Body.asm("r3 = 3; @orig; if r3 == 0 goto @orig"))
    assert patches[first + 1].target.node == 1


def test_target_is_what_the_original_refers_to():
    """``@target`` is where the instruction at the site jumps to."""
    assert_rewrite(
        TEXT,
        lambda p, at: p.replace(0, Body.asm("if r1 != 0 goto @end; r5 = 5; goto @target")),
        """
            if r1 != 0 goto next
            r5 = 5
            goto out
        next:
            r0 = 1
            call f
            r0 = 2
        out:
            exit
        f:  r0 = 3
            exit
        """,
    )


def test_target_of_a_call():
    """``@target`` of a call is the function that it calls."""
    patches = PatchList(program(TEXT))
    first = patches.insert_after(2, Body.asm("call @target"))
    assert patches[first].target.node == 5


def test_target_of_an_inserted_jump():
    """``@target`` works at a site that an edit put in."""
    patches = PatchList(program(TEXT))
    first = patches.insert_before(3, Body.asm("if r1 == 9 goto out", out=4))
    second = patches.replace(first, Body.asm("if r1 == 8 goto @target; r1 = 1"))
    assert patches[second].target.node == 4


@pytest.mark.parametrize(
    ("verb", "wanted"),
    [("insert_before", 1), ("prepend", 1), ("insert_after", 2), ("replace", 2)],
)
def test_end_is_what_follows_the_body(verb, wanted):
    """``@end`` is the site where the body goes in front of it, and else the next instruction."""
    patches = PatchList(program(TEXT))
    first = getattr(patches, verb)(1, Body.asm("if r3 == 0 goto @end; r4 = 4"))
    assert patches[first].target.node == wanted


def test_end_of_a_body_that_keeps_the_original_at_its_end():
    """``@end`` is behind the whole body, also where the original is its last instruction."""
    patches = PatchList(program(TEXT))
    first = patches.replace(1, Body.asm("if r3 == 0 goto @end; @orig"))
    assert patches[first].target.node == 2


def test_a_distance_to_the_end_is_the_end():
    """A jump just past a body's last instruction goes to what follows."""
    patches = PatchList(program(TEXT))
    first = patches.insert_after(1, Body.of(jump("==", 3, 0, 1), mov(4, 4)))
    assert patches[first].target.node == 2


def test_label_at_the_end_of_the_text():
    """A label behind the last instruction is the end."""
    patches = PatchList(program(TEXT))
    first = patches.insert_after(1, Body.asm("if r3 == 0 goto done; r4 = 4; done:"))
    assert patches[first].target.node == 2


def test_node_by_number_handle_and_numpy_integer():
    """A body names a node by its number, by a handle, or by an array's element."""
    patches = PatchList(program(TEXT))
    for node in (3, patches[3], np.int32(3)):
        first = patches.insert_before(1, Body.asm("if r3 == 0 goto far", far=node))
        assert patches[first].target.node == 3


def test_call_of_a_node():
    """A call and a function's address name a subprog by its first node."""
    assert_rewrite(
        TEXT,
        lambda p, at: p.insert_before(3, Body.asm("call f; r2 = f ll", f=at.f)),
        TEXT.replace("r0 = 2", "call f; r2 = f ll; r0 = 2"),
    )


def test_call_of_the_site_is_captured_as_other_calls_are():
    """A prologue that calls the function it is put in front of runs at that call too."""
    patches = PatchList(program(TEXT))
    first = patches.prepend(5, Body.asm("call f", f=5))
    assert patches[first].target.node == first


def test_a_body_serves_many_edits():
    """A body is not used up: one may go to many sites and lists."""
    body = Body.asm("if r9 == 1 goto @end; r9 = 9")
    for _ in range(2):
        patches = PatchList(program(TEXT))
        patches.insert_before([1, 3], body)
        patches.insert_before(6, body)
        assert len(patches) == 13
        assert [patches[n].target.node for n in (7, 9, 11)] == [1, 3, 6]


def test_body_of_nothing():
    """A body without instructions has none."""
    assert Body.of().nodes.size == 0
    assert Body.asm("").n_slots == 0


def test_insns_are_without_the_placeholder():
    """The instructions of a body do not show the original's place."""
    body = Body.asm("r1 = 1; @orig; r2 = 2 ll")
    assert body.insns["code"].tolist() == [0xB7, 0x18, 0]
    assert body.nodes.tolist() == [0, 1]
    assert (body.n_pre, body.n_slots, body.keeps) == (1, 3, True)
    with pytest.raises(ValueError, match="read-only"):
        body.insns["imm"] = 3


def test_repr():
    """A body's repr says how much is in it."""
    assert repr(Body.asm("r1 = 1; @orig; goto @orig")) == (
        "Body(2 instructions, 1 references, keeps the original)"
    )
    assert repr(Body.of(exit_())) == "Body(1 instructions, 0 references)"


# ---- what a body may not hold ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Body(isa.make(0xFF)), "body slot 0 has opcode 0xff, which is not in the table"),
        (lambda: Body(HOLE), "body slot 0 has opcode 0x00"),
        (lambda: Body(ld_imm64(1, 2)[:1]), "second slot of an ld_imm64 is missing"),
        (
            lambda: Body(concat([ld_imm64(1, 2)[:1], HOLE]), keeps=1),
            "second slot of an ld_imm64 is missing",
        ),
        (lambda: Body(mov(1, 1), keeps=0), "no all-zero placeholder at slot 0"),
        (lambda: Body(mov(1, 1), keeps=1), "no all-zero placeholder at slot 1"),
        (lambda: Body(mov(1, 1), keeps=-1), "no all-zero placeholder at slot -1"),
        (lambda: Body(ja(1)), "body slot 0 refers to slot 2 of a body of 1"),
        (lambda: Body(ja(-2)), "body slot 0 refers to slot -1 of a body of 1"),
        (lambda: Body.of(ja(1), ld_imm64(1, 2)), "body slot 0 refers to slot 2 of a body of 3"),
        (lambda: Body(ja(0), locals_={0: 2}), "body slot 0 refers to slot 2 of a body of 1"),
        (lambda: Body(call_subprog(-1)), "body slot 0 calls into its own body"),
        (lambda: Body(ld_func(1, -1)), "body slot 0 calls into its own body"),
        (lambda: Body(call_subprog(0), labels={0: To.END}), "body slot 0 calls the body's end"),
        (lambda: Body(mov(1, 1), labels={0: 5}), "body slot 0 has a label but holds no reference"),
        (lambda: Body(mov(1, 1), locals_={0: 0}), "body slot 0 has a label but holds no reference"),
        (lambda: Body.asm("r1 = 1\n goto away"), "line 2, column 7: no label 'away' in the body"),
    ],
)
def test_what_a_body_may_not_hold(make, message):
    """What cannot be a body is refused before it meets a list, with the slot."""
    with pytest.raises(OptionError, match=message):
        make()


def test_bad_text_has_line_and_column():
    """A body's text that is no assembly says where."""
    with pytest.raises(AsmError) as caught:
        Body.asm("r1 = 1\nr2 @ 3")
    assert caught.value.line == 2


# ---- where a body may not go -----------------------------------------------------------------


@pytest.mark.parametrize("verb", ["insert_before", "prepend", "insert_after"])
def test_only_replace_takes_a_body_that_keeps_the_original(verb):
    """The original is there already where a body only goes beside it."""
    patches = PatchList(program(TEXT))
    with pytest.raises(EditError, match=f"can only replace it, not {verb}") as caught:
        getattr(patches, verb)(1, Body.asm("r3 = 3; @orig"))
    assert caught.value.slot == 1


def test_replaced_original_is_no_target():
    """A body that jumps to the original must keep it."""
    with pytest.raises(EditError, match="which it does not keep"):
        PatchList(program(TEXT)).replace(1, Body.asm("goto @orig"))


def test_replaced_node_is_no_target():
    """A body cannot refer to the node that it replaces."""
    with pytest.raises(EditError, match="is what the body refers to and replaces"):
        PatchList(program(TEXT)).replace(1, Body.asm("goto it", it=1))


def test_bulk_replaced_node_is_no_target():
    """Nor to one of several that it replaces."""
    with pytest.raises(EditError, match="is what the body refers to and replaces") as caught:
        PatchList(program(TEXT)).replace([0, 1, 3], Body.asm("goto it", it=3))
    assert caught.value.slot == 3


def test_one_of_many_bodies_refers_to_what_another_replaces():
    """In one go, a later body cannot refer to what an earlier one has replaced."""
    patches = PatchList(program(TEXT))
    bodies = [Body.asm("r1 = 1"), Body.asm("goto it", it=1)]
    with pytest.raises(EditError, match="is replaced in the same go"):
        patches.replace([1, 3], bodies)
    assert patches.linearize().remap.is_identity


def test_one_of_many_bodies_may_refer_to_what_stays():
    """A body may refer to the site of another that keeps its original, or that comes later."""
    patches = PatchList(program(TEXT))
    patches.replace([1, 3], [Body.asm("goto it", it=3), Body.asm("@orig; goto it", it=0)])
    assert [i.code for i in patches][1:4] == [0x05, 0x85, 0xB7]


@pytest.mark.parametrize(
    ("site", "text", "message"),
    [
        (1, "goto @target", "does not jump"),
        (2, "goto @target", "does not jump"),
        (0, "call @target", "calls or addresses no subprog"),
        (1, "call @target", "calls or addresses no subprog"),
    ],
)
def test_target_needs_a_reference_of_its_kind(site, text, message):
    """``@target`` needs an instruction that jumps, or calls, as the body does."""
    with pytest.raises(EditError, match=message) as caught:
        PatchList(program(TEXT)).insert_after(site, Body.asm(text))
    assert caught.value.slot == site


def test_target_needs_one_at_every_site():
    """In bulk, the site without a target is named."""
    with pytest.raises(EditError, match="does not jump") as caught:
        PatchList(program(TEXT)).insert_after([0, 3], Body.asm("goto @target"))
    assert caught.value.slot == 3


def test_external_reference_has_no_target():
    """What a relocation owns refers to nothing that a body could go to."""
    given = program(TEXT)
    patches = PatchList(replace(given, external=np.array([2])))
    with pytest.raises(EditError, match="calls or addresses no subprog"):
        patches.insert_after(2, Body.asm("call @target"))


@pytest.mark.parametrize("node", [99, -1])
def test_node_that_never_was(node):
    """A body that names no node of the list cannot go in."""
    with pytest.raises(EditError, match=f"insn {node}: no such node"):
        PatchList(program(TEXT)).insert_before(1, Body.asm("goto it", it=node))


def test_node_that_is_gone():
    """A body that names a deleted node cannot go in."""
    patches = PatchList(program(TEXT))
    patches.delete(3)
    with pytest.raises(EditError, match="is deleted already"):
        patches.insert_before(1, Body.asm("goto it", it=3))


def test_node_of_another_list():
    """A handle in a body belongs to the list that the body is for."""
    patches, other = PatchList(program(TEXT)), PatchList(program(TEXT))
    body = Body.asm("goto it", it=other[3])
    for sites, bodies in ((1, body), ([1, 3], body), ([1, 3], [Body.of(), body])):
        with pytest.raises(OptionError, match="of another list"):
            patches.insert_before(sites, bodies)
    assert patches.linearize().remap.is_identity
    other.insert_before(1, body)


def test_failed_edit_leaves_the_list_alone():
    """An edit that is refused has changed nothing, in bulk as well."""
    patches = PatchList(program(TEXT))
    good, bad = Body.asm("r1 = 1"), Body.asm("goto it", it=99)
    for sites, bodies in ((1, bad), ([1, 3], bad), ([1, 3], [good, bad]), ([1, 99], good)):
        with pytest.raises(EditError):
            patches.insert_before(sites, bodies)
        with pytest.raises(EditError):
            patches.replace(sites, bodies)
    assert patches.linearize().remap.is_identity
    assert len(patches) == 7
