"""What can be reached, with and without constants, and how much work that takes."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.constants import Constants
from bpfpatch.dataflow.reach import Reach, reachable
from bpfpatch.patch import CodeView

NONE = np.zeros(0, np.int32)
ROOT = np.zeros(1, np.int32)


class Counted(Constants):
    """Constants that count how often a block is run."""

    n_runs = 0

    def run(self, block: int, known: dict[int, int]) -> tuple[dict[int, int], bool | None]:
        """Run one block, and count that."""
        self.n_runs += 1
        return super().run(block, known)


def explore(text: str, opaque: tuple[int, ...] = ()) -> tuple[Reach, Counted, Blocks]:
    """What is reached from slot 0, with constants from all but the ``opaque`` slots."""
    view = CodeView.of_program(assemble(text))
    blocks = Blocks.of(view, NONE)
    mask = np.zeros(len(view), bool)
    mask[list(opaque)] = True
    constants = Counted(view, blocks, mask)
    return reachable(view, blocks, ROOT, constants), constants, blocks


def test_without_constants_a_branch_goes_both_ways() -> None:
    """Nothing is decided unless it is asked for."""
    view = CodeView.of_program(assemble("r1 = 0; if r1 == 0 goto out; r0 = 1; out: exit"))
    found = reachable(view, Blocks.of(view, NONE), ROOT)
    assert found.block.all()
    assert found.taken.size == found.never.size == 0


def test_code_behind_a_goto_is_not_reached() -> None:
    """A block that nothing enters is not reached."""
    found, _, _ = explore("goto out; r0 = 1; out: exit")
    assert found.block.tolist() == [True, False, True]


def test_calls_and_addresses_reach_functions() -> None:
    """A called function is reached, and one whose address is taken; another is not."""
    text = """
        r1 = &callback; call f; exit
        .subprog f; r0 = 1; exit
        .subprog callback; r0 = 2; exit
        .subprog other; r0 = 3; exit
    """
    found, _, _ = explore(text)
    assert found.subprog.tolist() == [True, True, True, False]


def test_calls_from_unreached_code_reach_nothing() -> None:
    """Only code that runs calls."""
    found, _, _ = explore("goto out; call f; out: exit; f: exit")
    assert found.subprog.tolist() == [True, False]


def test_taken_and_never_are_told_apart() -> None:
    """A branch that always jumps is taken; one that never does is never."""
    text = "r1 = 1; if r1 != 2 goto a; r0 = 1; a: r1 = 2; if r1 != 2 goto b; b: exit"
    found, _, _ = explore(text)
    assert found.taken.tolist() == [1]
    assert found.never.tolist() == [4]


def test_constants_follow_fall_through() -> None:
    """What a block knows, the one that it falls into knows, too."""
    found, _, _ = explore("r1 = 1; if r2 == 0 goto out; if r1 == 0 goto out; out: exit")
    assert found.never.tolist() == [2]


def test_constants_follow_a_jump() -> None:
    """What a block knows, the one that it jumps to knows, too: a nop hides nothing."""
    found, _, _ = explore("r1 = 1; goto in; in: if r1 == 0 goto out; out: exit")
    assert found.never.tolist() == [2]


def test_constants_follow_entries_that_agree() -> None:
    """Where two ways meet, what both know alike is known."""
    text = """
        if r2 == 0 goto other
        r1 = 1; r3 = 1; goto in
        other: r1 = 2; r3 = 1
        in: if r1 != 1 goto out
        if r3 != 1 goto out
        out: exit
    """
    found, _, _ = explore(text)
    assert found.never.tolist() == [7]


def test_constants_do_not_follow_a_call() -> None:
    """A function knows nothing on entry, whatever its only caller knows."""
    found, _, _ = explore("r6 = 1; call f; exit; f: if r6 == 1 goto out; r0 = 0; out: exit")
    assert found.taken.size == found.never.size == 0


def test_wide_constant_joins_its_halves() -> None:
    """The halves of an ld_imm64 are numbers without a sign."""
    found, _, _ = explore("r1 = 0x180000000 ll; r1 >>= 31; if r1 != 3 goto out; out: exit")
    assert found.never.tolist() == [3]
    found, _, _ = explore("r1 = -2 ll; if r1 != -2 goto out; out: exit")
    assert found.never.tolist() == [2]


def test_back_edge_spoils_what_changes_in_the_loop() -> None:
    """A loop's head keeps what the loop leaves alone, and nothing else."""
    text = """
        r1 = 0; r2 = 0
        head: if r1 > 5 goto out
        if r2 > 5 goto out
        r1 += 1; goto head
        out: exit
    """
    found, _, _ = explore(text)
    assert found.never.tolist() == [3]


def test_entry_by_a_dead_jump_spoils_nothing() -> None:
    """A jump that cannot run does not enter its target, be it in front or behind."""
    text = """
        r1 = 1
        if r1 == 0 goto in
        r2 = 1
        in: if r2 == 0 goto out
        exit
        goto in
        out: exit
    """
    found, _, _ = explore(text)
    assert found.never.tolist() == [1, 3]
    assert found.block.tolist() == [True, True, True, True, False, False]


def test_dead_loop_does_not_keep_itself_alive() -> None:
    """Blocks that only each other enter are not reached."""
    found, _, _ = explore("goto out; a: r1 = 1; goto a; out: exit")
    assert found.block.tolist() == [True, False, True]


def test_opaque_insns_make_no_constants() -> None:
    """What a loader fills in, nobody knows: a move, arithmetic, an ld_imm64, a branch."""
    text = "r1 = 1; r1 += 1; r2 = 5 ll; if r1 != 2 goto out; if r2 != 5 goto out; out: exit"
    assert explore(text)[0].never.tolist() == [4, 5]
    assert explore(text, opaque=(0,))[0].never.tolist() == [5]
    assert explore(text, opaque=(1,))[0].never.tolist() == [5]
    assert explore(text, opaque=(2,))[0].never.tolist() == [4]
    assert explore(text, opaque=(4,))[0].never.tolist() == [5]


def test_opaque_negation_and_swap_make_no_constants() -> None:
    """An instruction without an operand is opaque like any other."""
    text = "r1 = 1; r1 = -r1; r1 = bswap16 r1; if r1 == 0xffff goto out; out: exit"
    assert explore(text)[0].taken.tolist() == [3]
    assert explore(text, opaque=(1,))[0].taken.size == 0
    assert explore(text, opaque=(2,))[0].taken.size == 0


@pytest.mark.parametrize(
    "insn",
    [
        "r1 = *(u64 *)(r10 - 8)",
        "r1 = map ll",
        "r1 = be16 r1",
        "r1 = r2",
        "r1 += r2",
        "call 7",
        "call f",
        "r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)",
        "r1 = xchg_64(r10 - 8, r1)",
    ],
)
def test_what_is_not_arithmetic_on_constants_is_unknown(insn: str) -> None:
    """After a load, an address, a call or an unknown operand, a register is unknown."""
    text = f"r1 = 1; {insn.replace('map', 'f')}; if r1 == 1 goto out; out: exit; f: r0 = 1; exit"
    found, _, _ = explore(text)
    assert found.taken.size == found.never.size == 0


def test_cmpxchg_makes_r0_unknown() -> None:
    """A cmpxchg writes R0, which it does not name, and leaves its source."""
    text = """
        r0 = 1; r1 = 2
        r0 = cmpxchg_64(r10 - 8, r0, r1)
        if r0 != 1 goto out
        if r1 != 2 goto out
        out: exit
    """
    assert explore(text)[0].never.tolist() == [4]


def test_calls_keep_r6_to_r9() -> None:
    """A call clobbers R0 to R5 and no other."""
    text = "r5 = 1; r6 = 1; call 7; if r5 != 1 goto out; if r6 != 1 goto out; out: exit"
    found, _, _ = explore(text)
    assert found.never.tolist() == [4]


def test_stores_write_no_register() -> None:
    """A store to memory leaves what is known."""
    found, _, _ = explore("r1 = 1; *(u64 *)(r10 - 8) = r1; if r1 != 1 goto out; out: exit")
    assert found.never.tolist() == [2]


def test_may_goto_is_never_decided() -> None:
    """A may_goto depends on a budget that no code shows, whatever its fields say."""
    found, _, _ = explore("r0 = 0; may_goto out; r0 = 1; out: exit")
    assert found.taken.size == found.never.size == 0
    assert found.block.all()


def test_functions_that_compare_nothing_are_not_run() -> None:
    """A function without a comparing branch asks for no look at single instructions."""
    _, constants, _ = explore("r1 = 1; may_goto out; r1 = 2; out: exit")
    assert constants.run(0, {5: 5}) == ({}, None)


def test_branch_behind_a_block_that_ends_in_a_wide_load_is_decided() -> None:
    """The only branch of a function counts, whatever the block in front of it ends in."""
    found, _, _ = explore("r1 = 7 ll; b: if r1 == 7 goto out; r0 = 1; out: exit; goto b")
    assert found.taken.tolist() == [2]


@pytest.mark.parametrize(
    "unit",
    [
        "r1 = 1; if r1 == 0 goto n{next}; r1 = 1; n{next}:",
        "r2 = 1; if r2 == 0 goto n{next}; n{next}:",
        "r1 = 1; r2 += r1; h{at}: r1 += 1; if r1 < 9 goto h{at}; n{next}: if r2 != 0 goto n{at}",
        "goto n{next}; n{next}:",
        "if r1 == 0 goto n{last}; n{next}: r1 = 1",
        "r0 = 0; r1 = 0; r2 = 0; r3 = 0; if r3 > 5 goto n{first}; n{next}: r2 += r1; r3 += r2",
    ],
)
def test_work_is_linear_in_blocks(unit: str) -> None:
    """No block is run more often than it has registers to forget, and once more."""
    n_units = 400
    text = ["n0:"]
    for at in range(n_units):
        text.append(unit.format(at=at, next=at + 1, first=0, last=n_units))
    _, constants, blocks = explore("\n".join([*text, "r0 = 0; exit"]))
    assert constants.n_runs <= 12 * len(blocks)
