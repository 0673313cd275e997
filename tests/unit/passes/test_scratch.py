"""Where inserted code finds registers."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.remakes import remaking
from bpfpatch.isa.semantics import U64
from bpfpatch.passes.scratch import Scratch, ScratchPlace, fastcall_sequences
from bpfpatch.patch import PatchList

ALL_SET = "\n".join(
    f"r{register} = *(u32 *)(r1 + {4 * register})" for register in (*range(2, 10), 0, 1)
)
ALL_READ = "\n".join(f"r0 += r{register}" for register in range(10))
BUSY = f".subprog f\n{ALL_SET}\ngoto L\nL:\n{ALL_READ}\nexit"
"""At slot 10 and 11, all registers are in use."""


def scratch(text: str, reserved: int = 0) -> Scratch:
    """The scratch planner of some code."""
    view = PatchList(assemble(text)).view()
    return Scratch(view, Blocks.of(view, np.zeros(0, np.int32)), reserved)


def place(found: ScratchPlace | str) -> ScratchPlace:
    """What must be a place."""
    assert isinstance(found, ScratchPlace), found
    return found


def test_a_register_that_nobody_reads_is_free() -> None:
    """Registers behind the arguments come first, and those that are read later not at all."""
    found = place(scratch(".subprog f\nr6 = 1\nr0 = r6\nexit").at(1, 2))
    assert found.registers == (0, 7)
    assert not found.spills


def test_a_block_offers_its_best_place() -> None:
    """Where one instruction has no free register, another one of the block may."""
    one = scratch(BUSY)
    assert place(one.within(11, 21, 2)).slot > 11
    assert place(one.within(0, 10, 2)).slot < 10


def test_busy_registers_are_spilled() -> None:
    """Where all are in use, two are saved below what the function uses of its stack."""
    text = BUSY.replace("goto L\n", "*(u64 *)(r10 - 20) = r1\ngoto L\n")
    found = place(scratch(text).at(12, 2))
    assert len(found.spills) == 2
    assert sorted(at for _, at in found.spills) == [32, 40]
    work = found.around(isa.mov(found.registers[0], 1))
    assert len(work) == 5
    assert isa.is_store(work[:2]).all()
    assert isa.is_load(work[3:]).all()


def test_reserved_bytes_are_left_alone() -> None:
    """Spills go below what somebody else has taken of the frame."""
    found = place(scratch(BUSY, reserved=16).at(11, 2))
    assert sorted(at for _, at in found.spills) == [24, 32]


def test_a_full_stack_is_a_reason() -> None:
    """Without room to spill, the answer says so."""
    text = BUSY.replace("goto L\n", "*(u64 *)(r10 - 512) = r1\ngoto L\n")
    text = text.replace("exit", "r2 = r10\nr2 += -512\nr1 = 0\ncall bpf_map_lookup_elem\nexit")
    assert scratch(text).at(12, 2) == "no register is free, and the stack has no room to spill one"


def test_dead_bytes_of_a_full_stack() -> None:
    """A word of the frame that is written before it is read can hold a register meanwhile."""
    text = BUSY.replace("goto L\n", "*(u64 *)(r10 - 512) = r1\ngoto L\n")
    text = text.replace("L:\n", "L:\nr0 = *(u64 *)(r10 - 512)\n*(u64 *)(r10 - 512) = r0\n")
    text = text.replace("exit", "r2 = r10\nr2 += -512\nr1 = 0\ncall bpf_map_lookup_elem\nexit")
    one = scratch(text)
    assert one.dead(12) == []
    assert one.dead(13) == [512]
    assert place(one.at(13, 1)).spills == ((9, 512),)


@pytest.mark.parametrize(
    ("recipe", "again"),
    [
        ("r9 = 7", ["r9 = 0x7"]),
        ("w9 = -7", ["r9 = 0xfffffff9 ll"]),
        ("r9 = 0x123456789a ll", ["r9 = 0x123456789a ll"]),
        ("r9 = 3; r9 <<= 4; r9 += 1", ["r9 = 0x31"]),
        ("r9 = r10", ["r9 = r10"]),
        ("r9 = r10; r9 += -24", ["r9 = r10", "r9 += -0x18"]),
    ],
)
def test_registers_that_can_be_made_again(recipe: str, again: list[str]) -> None:
    """What holds a constant, or R10 and a constant, is used without saving it."""
    one = scratch(BUSY.replace("goto L\n", f"{recipe}\ngoto L\n"))
    slot = int(np.flatnonzero(one._view.insns["code"] == 0x05)[0])
    found = place(one.at(slot, 1))
    assert found.registers == (9,)
    assert not found.spills
    assert found.remakes is not None
    starts = np.flatnonzero(~isa.second_slots(found.remakes))
    assert [isa.describe(found.remakes, at) for at in starts.tolist()] == again


@pytest.mark.parametrize("value", [0, 7, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, U64])
def test_making_a_number_again_needs_no_newer_cpu(value: int) -> None:
    """Whatever the number, a program for cpu v1 stays one."""
    view = PatchList(assemble("exit")).view()
    assert int(isa.min_cpu(remaking(view, 9, ("number", value))).max()) == 1


def test_an_unclear_stack_is_a_reason() -> None:
    """Where an address goes anywhere, nothing below it is free for certain."""
    text = BUSY.replace("goto L\n", "r1 = r10\nr1 -= r2\ngoto L\n")
    text = text.replace("exit", "r0 = *(u8 *)(r1 + 0)\nexit")
    assert "how much of the stack is in use cannot be told" in str(scratch(text).at(13, 2))


def test_unset_registers_are_not_spilled() -> None:
    """The verifier refuses to read a register that nobody has set."""
    text = ".subprog f\ncall bpf_csum_diff\nr0 = 0\nexit"
    found = scratch(text).at(0, 9)
    assert isinstance(found, str)
    assert "too few are set" in found


def test_arguments_count_as_read() -> None:
    """What is handed to a function stays, though the function does not look at it.

    The verifier checks the arguments of a global function by its type.
    """
    text = ".subprog f\nr2 = 7\ncall g\nexit\n.subprog g\nr0 = 0\nexit"
    one = scratch(text)
    assert one.live(1) >> 2 & 1
    assert 2 not in place(one.at(1, 5)).registers


def test_frames_grow_together() -> None:
    """A chain has room only if all frames in it may take as much.

    248 and 232 bytes make frames of 256 and 240, of 512. Either may grow by 16, both may not.
    """
    text = (
        ".subprog f\n*(u64 *)(r10 - 248) = r1\ncall g\nexit\n"
        ".subprog g\n*(u64 *)(r10 - 232) = r1\nr0 = 0\nexit"
    )
    one = scratch(text)
    assert one.stack.room.tolist() == [8, 24]
    assert one.home(0, 8) == 256
    assert one.home(0, 16) is None
    assert one.home(1, 16) is None


def test_home_is_aligned() -> None:
    """Bytes are counted in words."""
    one = scratch(".subprog f\n*(u8 *)(r10 - 3) = 1\nr0 = 0\nexit")
    assert one.home(0, 4) == 16


@pytest.mark.parametrize(
    ("before", "behind", "expected"),
    [
        ("*(u64 *)(r10 - 8) = r1", "r1 = *(u64 *)(r10 - 8)", [(1, 2)]),
        ("*(u64 *)(r10 - 8) = r1", "r2 = *(u64 *)(r10 - 8)", []),
        ("*(u64 *)(r10 - 8) = r1", "r1 = *(u64 *)(r10 - 16)", []),
        ("*(u32 *)(r10 - 8) = w1", "r1 = *(u32 *)(r10 - 8)", []),
    ],
)
def test_fastcall_sequences(before: str, behind: str, expected: list[tuple[int, int]]) -> None:
    """A pair saves a register to a word of the stack and restores it from there."""
    program = assemble(f"{before}\ncall 8\n{behind}\nexit")
    slots = np.arange(len(program), dtype=np.int32)
    assert fastcall_sequences(program.insns, slots) == expected


def test_nothing_goes_into_a_sequence() -> None:
    """In front of a sequence's first instruction there is a place, inside there is none."""
    one = scratch("*(u64 *)(r10 - 8) = r1\ncall 8\nr1 = *(u64 *)(r10 - 8)\nr0 = r1\nexit")
    assert isinstance(one.at(0, 1), ScratchPlace)
    assert "must stay together" in str(one.at(1, 1))
    assert "must stay together" in str(one.within(1, 2, 1))
