"""Basic blocks and their edges."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.reach import reachable
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import LOST, Program

NONE = np.zeros(0, np.int32)


def blocks_of(text: str, indirect: list[int] | None = None) -> Blocks:
    """The blocks of a text, with these slots as indirect targets."""
    view = CodeView.of_program(assemble(text))
    return Blocks.of(view, np.array(indirect or [], np.int32))


def test_straight_code_is_one_block() -> None:
    """Calls do not end a block."""
    blocks = blocks_of("r1 = 1; call 7; r1 = 2; exit")
    assert blocks.start.tolist() == [0]
    assert blocks.last.tolist() == [3]
    assert blocks.falls.tolist() == [False]


def test_branch_ends_a_block_and_its_target_starts_one() -> None:
    """A conditional jump has two ways on, a goto one, an exit none."""
    blocks = blocks_of("if r1 == 0 goto out; r0 = 1; goto out; r0 = 2; out: exit")
    assert blocks.start.tolist() == [0, 1, 3, 4]
    assert blocks.falls.tolist() == [True, False, True, False]
    assert blocks.jump.tolist() == [3, 3, LOST, LOST]


def test_last_is_the_first_slot_of_a_wide_insn() -> None:
    """A block that ends in an ld_imm64 ends at its first slot."""
    blocks = blocks_of("goto in; in: r1 = 1 ll; again: if r1 == 0 goto again; exit")
    assert blocks.start.tolist() == [0, 1, 3, 4]
    assert blocks.last.tolist() == [0, 1, 3, 4]


def test_subprogs_start_blocks() -> None:
    """Each subprog's blocks say whose they are."""
    blocks = blocks_of("call f; exit; f: r0 = 1; exit")
    assert blocks.start.tolist() == [0, 2]
    assert blocks.subprog.tolist() == [0, 1]


def test_may_goto_goes_both_ways() -> None:
    """A may_goto has two ways on."""
    blocks = blocks_of("a: may_goto b; goto a; b: exit")
    assert blocks.falls.tolist() == [True, False, False]
    assert blocks.jump.tolist() == [2, 0, LOST]


def test_indirect_jump_reaches_what_tables_name_in_its_subprog() -> None:
    """A gotox has an edge to each named slot of its subprog, and to no other."""
    text = "gotox r1; r0 = 1; exit; r0 = 2; exit; .subprog f; r0 = 3; exit"
    blocks = blocks_of(text, [3, 5])
    assert blocks.start.tolist() == [0, 1, 3, 5]
    assert blocks.is_indirect.tolist() == [True, False, False, False]
    assert blocks.indirect == {0: [2], 1: [3]}


def test_indirect_jump_without_table_may_go_anywhere_in_its_subprog() -> None:
    """Where no table says where a gotox goes, it can go to every instruction."""
    blocks = blocks_of("gotox r1; r1 = 5 ll; exit; .subprog f; r0 = 3; exit")
    assert blocks.start.tolist() == [0, 1, 3, 4]
    assert blocks.indirect == {0: [0, 1, 2]}


def test_empty_code_has_no_blocks() -> None:
    """A list of which everything is deleted has no blocks, and nothing is reached."""
    patches = PatchList(Program(isa.exit_()))
    patches.delete(0)
    view = patches.view()
    blocks = Blocks.of(view, NONE)
    assert len(blocks) == 0
    assert reachable(view, blocks, NONE).block.size == 0
