"""Looks at a list: the loop, handles, find, the flat view, targets, subprogs."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.isa import R1, R2, concat
from bpfpatch.patch import Body, CodeView, Insn, PatchList
from bpfpatch.program import INSERTED, LOST, Column, Program
from support.cases.rewrite import program

TEXT = """
        r1 = 0x1122334455667788 ll
    loop:
        if r1 == 0 goto out
        call f
        goto loop
    out:
        exit
    f:  *(u32 *)(r10 - 8) = r1
        r0 = *(u32 *)(r10 - 8)
        call bpf_ktime_get_ns
        exit
"""


@pytest.fixture
def patches() -> PatchList:
    """A list of the program above."""
    return PatchList(program(TEXT))


# ---- the loop --------------------------------------------------------------------------------


def test_loop_visits_live_instructions(patches):
    """A loop over a list visits its live instructions in order; an ld_imm64 is one."""
    patches.delete(3)
    assert [insn.node for insn in patches] == [0, 2, 4, 5, 6, 7, 8, 9]
    assert len(patches) == 8


def test_loop_skips_what_is_deleted_on_the_way(patches):
    """What the loop itself deletes further on is not visited."""
    seen = []
    for insn in patches:
        seen.append(insn.node)
        if insn.node == 2:
            patches.delete([3, 4])
    assert seen == [0, 2, 5, 6, 7, 8, 9]


def test_loop_does_not_visit_what_it_inserts(patches):
    """What the loop itself inserts is there afterwards, but is not visited."""
    seen = []
    for insn in patches:
        seen.append(insn.node)
        patches.insert_after(insn, Body.asm("r9 = 9"))
    assert len(seen) == 9
    assert len(patches) == 18


def test_next_loop_visits_what_was_inserted(patches):
    """A later pass sees and may edit what an earlier one has inserted."""
    patches.insert_before(5, Body.asm("r9 = 9"))
    for insn in patches:
        if insn.is_inserted:
            patches.replace(insn, Body.asm("r8 = 8; r7 = 7"))
    assert [insn.dst for insn in patches if insn.is_inserted] == [8, 7]


# ---- handles ---------------------------------------------------------------------------------


def test_handle_says_the_fields(patches):
    """A handle decodes its instruction's fields, signs included."""
    patches.insert_before(0, Body.of(isa.store("u64", R1, -8, R2), isa.mov(3, -5)))
    store, mov = patches[10], patches[11]
    assert (store.code, store.dst, store.src, store.off, store.imm) == (0x7B, 1, 2, -8, 0)
    assert (mov.code, mov.dst, mov.src, mov.off, mov.imm) == (0xB7, 3, 0, 0, -5)
    assert mov.imm64 == 2**64 - 5
    assert store.word == 0x0000_0000_FFF8_217B


def test_handle_of_an_ld_imm64(patches):
    """Both slots of an ld_imm64 are behind one handle."""
    wide = patches[0]
    assert wide.is_ld_imm64
    assert wide.imm64 == 0x1122334455667788
    assert wide.imm == 0x55667788
    assert len(wide.insns) == 2
    assert len(patches[2].insns) == 1
    assert wide.insns.tobytes() == patches.program.insns[:2].tobytes()


PREDICATES = {
    "is_exit": [5, 9],
    "is_jump": [2, 4],
    "is_cond_jump": [2],
    "is_call": [3, 8],
    "is_helper_call": [8],
    "is_subprog_call": [3],
    "is_load": [7],
    "is_store": [6],
    "is_ld_imm64": [0],
}


@pytest.mark.parametrize(("name", "nodes"), PREDICATES.items())
def test_predicates_of_handles(patches, name, nodes):
    """A handle's predicates are those of the array, for one instruction."""
    assert [insn.node for insn in patches if getattr(insn, name)] == nodes
    assert patches.find(getattr(isa, name)).tolist() == nodes


def test_handle_outlives_edits(patches):
    """A handle stays that instruction's, whatever happens around it."""
    exit_ = patches[5]
    patches.insert_before([0, 5], Body.asm("r9 = 9"))
    patches.delete(4)
    assert exit_.is_exit
    assert not exit_.is_deleted
    patches.delete(exit_)
    assert exit_.is_deleted
    assert exit_.is_exit
    assert repr(exit_) == "<deleted Insn 5 (slot 5): exit>"


def test_handle_says_where_it_comes_from(patches):
    """orig_idx is the original slot, or INSERTED."""
    first = patches.insert_before(2, Body.asm("r9 = 9"))
    assert (patches[2].orig_idx, patches[2].is_inserted) == (2, False)
    assert (patches[first].orig_idx, patches[first].is_inserted) == (INSERTED, True)
    assert repr(patches[first]) == f"<Insn {first} (inserted): r9 = 0x9>"


def test_handles_are_equal_by_identity(patches):
    """Two handles of one node of one list are the same, in sets too."""
    assert patches[3] == patches[3]
    assert patches[3] != patches[4]
    assert patches[3] != PatchList(patches.program)[3]
    assert patches[3] != 3
    assert len({patches[3], patches[3], patches[4]}) == 2


def test_target_of_a_handle(patches):
    """A handle's target is a handle, or None where there is no reference."""
    assert patches[2].target == patches[5]
    assert patches[3].target == patches[6]
    assert patches[0].target is None
    assert isinstance(patches[4].target, Insn)


def test_target_that_is_lost(patches):
    """A reference whose target is gone for good has none."""
    patches.delete([6, 7, 8, 9])
    assert patches[3].target is None


def test_target_follows_edits(patches):
    """A target is what the reference now goes to."""
    first = patches.insert_before(5, Body.asm("r0 = 0"))
    assert patches[2].target.node == first
    patches.delete(first)
    assert patches[2].target.node == 5


# ---- arrays ----------------------------------------------------------------------------------


def test_nodes_are_read_only(patches):
    """The list's order is not to be written."""
    with pytest.raises(ValueError, match="read-only"):
        patches.nodes()[0] = 3


def test_find_sees_what_was_inserted(patches):
    """Find gives nodes in order, inserted ones among them, and no second slots."""
    first = patches.insert_before(2, Body.asm("r9 = 9 ll; call bpf_ktime_get_ns"))
    assert patches.find(isa.is_ld_imm64).tolist() == [0, first]
    assert patches.find(isa.is_helper_call).tolist() == [first + 2, 8]
    assert patches.find(lambda insns: np.ones(len(insns), bool)).tolist() == (
        patches.nodes().tolist()
    )


def test_word_of_a_second_slot(patches):
    """The word of a second slot can be read."""
    assert patches.word(1) >> 32 == 0x11223344


def test_is_alive(patches):
    """Alive is the first slot of an instruction that is still there."""
    patches.delete(2)
    alive = [node for node in range(-1, 12) if patches.is_alive(node)]
    assert alive == [0, 3, 4, 5, 6, 7, 8, 9]


def test_subprog_nodes(patches):
    """A subprog's nodes are those between its start and the next one's, inserted ones included."""
    first = patches.prepend(6, Body.asm("r9 = 9"))
    last = patches.insert_after(5, Body.asm("exit"))
    assert patches.subprog_nodes("main").tolist() == [0, 2, 3, 4, 5, last]
    assert patches.subprog_nodes("f").tolist() == [first, 6, 7, 8, 9]


# ---- the flat view ---------------------------------------------------------------------------


def test_view_of_an_unedited_list(patches):
    """The view of a list without edits is the program's."""
    for view in (patches.view(), CodeView.of_program(patches.program)):
        assert len(view) == 10
        assert view.node.tolist() == [0, -1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert view.ref_slot.tolist() == [2, 3, 4]
        assert view.ref_target.tolist() == [5, 6, 2]
        assert view.ref_is_entry.tolist() == [False, True, False]
        assert view.starts.tolist() == [0, 6]
        assert view.subprog.tolist() == [0, 1]
        assert view.n_original == 10
        assert view.insns["code"].tolist() == patches.program.insns["code"].tolist()


def test_view_counts_flat_slots(patches):
    """In the view, every place is a slot of the code as it is now."""
    first = patches.insert_before(5, Body.asm("r0 = 1 ll; if r0 == 0 goto out", out=2))
    patches.delete(4)
    view = patches.view()
    assert view.node.tolist() == [0, -1, 2, 3, first, -1, first + 2, 5, 6, 7, 8, 9]
    assert view.ref_slot.tolist() == [2, 3, 6]
    assert view.ref_target.tolist() == [4, 8, 2]
    assert view.starts.tolist() == [0, 8]
    assert view.land.tolist() == [0, LOST, 2, 3, 4, 4, 8, 9, 10, 11]


def test_view_without_a_subprog(patches):
    """A deleted subprog is not in the view, and a call of it has a lost target."""
    patches.delete_subprog("f")
    view = patches.view()
    assert view.starts.tolist() == [0]
    assert view.subprog.tolist() == [0]
    assert view.ref_target.tolist() == [5, LOST, 2]
    assert view.land.tolist()[6:] == [LOST] * 4


def test_view_subprog_of(patches):
    """The view says which subprog a slot is in."""
    assert patches.view().subprog_of(np.array([0, 5, 6, 9])).tolist() == [0, 0, 1, 1]


def test_view_is_not_changed_by_edits(patches):
    """A view shows the code as it was when it was taken."""
    view = patches.view()
    patches.insert_before(0, Body.asm("r9 = 9"))
    patches.modify(7, dst=5)
    patches.nodes()
    assert len(view) == 10
    assert view.insns["regs"][7] & 0xF == 0


def test_empty_program():
    """A program without instructions can be listed, looked at and linearized."""
    patches = PatchList(Program(concat([])))
    assert len(patches) == 0
    assert list(patches) == []
    assert len(patches.view()) == 0
    new, remap = patches.linearize()
    assert len(new) == 0
    assert remap.is_identity
    assert remap.bound.tolist() == [0]


@pytest.mark.parametrize("n_exits", [1, 9])
def test_view_of_a_short_program(n_exits):
    """The second slot of an ld_imm64 is nobody's target, however short the program is."""
    given = Program(concat([isa.ld_imm64(1, 5), *[isa.exit_()] * n_exits]))
    patches = PatchList(given)
    assert patches.view().land.tolist()[:3] == [0, LOST, 2]
    assert patches.linearize().remap.land.tolist()[:3] == [0, LOST, 2]
    assert patches.linearize().remap.entry.tolist()[:3] == [0, LOST, 2]


def test_column_at_nodes() -> None:
    """It is what the whole column says at them, before and after somebody writes to it."""
    column = Column(np.array([[1, 2], [3, 4]], np.int16), fill=7)
    given = Program(np.concatenate([isa.mov(isa.R0, 0), isa.exit_()]), columns={"pair": column})
    patches = PatchList(given)
    assert patches.aux_at("pair", np.array([1, 0, 1])).tolist() == [[3, 4], [1, 2], [3, 4]]
    new = patches.insert_before(0, Body.of(isa.mov(isa.R1, 0)))
    assert patches.aux_at("pair", np.array([new, 0])).tolist() == [[7, 7], [1, 2]]
    patches.aux("pair")[0] = 9
    assert patches.aux_at("pair", np.array([0])).tolist() == [[9, 9]]
    assert patches.linearize().program.columns["pair"].values.tolist() == [[7, 7], [9, 9], [3, 4]]
    with pytest.raises(OptionError, match="no column 'other'; there are: pair"):
        patches.aux_at("other", np.array([0]))


def test_reprs_are_one_line() -> None:
    """A program, its list and what is linearized say in a line what they are of."""
    given = Program(np.concatenate([isa.mov(isa.R0, 0), isa.exit_()]))
    patches = PatchList(given)
    shown = "<Program of 2 slots, 1 subprogs, with none>"
    assert repr(given) == shown
    assert repr(patches) == f"<PatchList of {shown}, all edits merged>"
    patches.insert_before(0, Body.of(isa.mov(isa.R1, 0)))
    assert repr(patches) == f"<PatchList of {shown}, edits to merge>"
    assert repr(patches.linearize()) == (
        "<Linearized <Program of 3 slots, 1 subprogs, with none> from 2 slots>"
    )
