"""How deep a frame is in use, and what is left of the stack."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.dataflow.stackvalues import computed
from bpfpatch.isa.semantics import compute
from bpfpatch.patch import CodeView


def use(text: str) -> StackUse:
    """The stack use of assembly."""
    view = CodeView.of_program(assemble(text))
    return StackUse.of(view, Blocks.of(view, np.zeros(0, np.int32)))


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("r0 = 0; exit", 0),
        ("*(u64 *)(r10 - 8) = 1; r0 = *(u32 *)(r10 - 12); exit", 12),
        ("r2 = r10; r2 += -16; call bpf_map_lookup_elem; exit", 16),
        ("r2 = r10; r2 -= 16; *(u64 *)(r2 - 8) = 1; r0 = 0; exit", 24),
        ("r2 = r10; r3 = r2; r0 = 7; r3 += -40; r3 += 8; r0 = *(u8 *)(r3 - 2); exit", 34),
        ("lock *(u64 *)(r10 - 64) += r1; r0 = 0; exit", 64),
        ("w1 = load_acquire((u32 *)(r10 - 20)); r0 = 0; exit", 20),
        (
            "r2 = r10; r2 += -16; *(u64 *)(r10 - 8) = r2; r3 = *(u64 *)(r10 - 8); "
            "r0 = *(u8 *)(r3 - 8); exit",
            24,
        ),
        ("r2 = r10; if r1 == 0 goto on; r2 += -32; on: r0 = *(u8 *)(r2 - 8); exit", 40),
        ("r2 = r10; r2 += -8; w2 += -900; r0 = *(u8 *)(r2 + 0); exit", 0),
        # Other arithmetic ends an address.
        ("r6 = r10; r6 &= -8; *(u8 *)(r6 - 99) = 1; exit", 0),
        ("r6 = r10; if r1 == 0 goto on; r6 = 0; on: r6 >>= 3; *(u8 *)(r6 - 99) = 1; exit", 0),
        ("r1 -= r10; *(u8 *)(r1 - 99) = 1; exit", 0),
        # Once an address was stored, the word that it is in gives it back, and nothing else.
        ("*(u64 *)(r10 - 8) = r10; r3 = *(u64 *)(r1 + 0); *(u8 *)(r3 - 99) = 1; exit", 8),
        ("*(u64 *)(r10 - 8) = r10; r3 = *(u64 *)(r10 - 16); *(u8 *)(r3 - 99) = 1; exit", 16),
        ("*(u64 *)(r10 - 8) = r10; r3 = *(u32 *)(r10 - 8); *(u8 *)(r3 - 99) = 1; exit", 8),
        (
            "*(u64 *)(r10 - 8) = r10; *(u64 *)(r10 - 8) = 0; r3 = *(u64 *)(r10 - 8); "
            "*(u8 *)(r3 - 99) = 1; exit",
            8,
        ),
        ("*(u64 *)(r10 - 8) = r10; r3 = *(u64 *)(r10 - 8); *(u8 *)(r3 - 99) = 1; exit", 99),
        # An atomic operation neither stores nor fetches an address.
        (
            "r6 = r10; lock *(u64 *)(r10 - 8) += r6; r3 = *(u64 *)(r10 - 8); "
            "*(u8 *)(r3 - 99) = 1; exit",
            8,
        ),
        # A number that is not negative goes no deeper.
        ("r2 = r10; r2 += -16; r1 = *(u8 *)(r1 + 0); r2 += r1; *(u8 *)(r2 + 0) = 1; exit", 16),
        ("r2 = r10; r2 += -16; w1 = w1; r2 += r1; *(u8 *)(r2 + 0) = 1; exit", 16),
        ("r2 = r10; r2 += -16; r1 &= 7; r2 += r1; *(u8 *)(r2 + 0) = 1; exit", 16),
        ("r2 = r10; r2 += -16; r1 >>= 60; r2 += r1; *(u8 *)(r2 + 0) = 1; exit", 16),
        ("r2 = r10; r2 += -16; if r1 > 7 goto out; r2 += r1; *(u8 *)(r2 + 0) = 1; out: exit", 16),
        ("r2 = r10; r2 += -16; if r1 s< 0 goto out; r2 += r1; *(u8 *)(r2 + 0) = 1; out: exit", 16),
        ("r2 = r10; r2 += -16; r1 &= 7; r2 -= r1; *(u8 *)(r2 + 0) = 1; exit", 23),
        (
            "r1 = 0; l: r2 = r10; r2 += -16; r2 += r1; *(u8 *)(r2 + 0) = 1; r1 += 1; "
            "if r1 != 16 goto l; exit",
            16,
        ),
        # What is called goes as far below an argument as its own code does.
        ("r1 = r10; r1 += -16; call f; exit; f: *(u8 *)(r1 + 3) = 1; exit", 13),
        (
            "r2 = r10; r2 += -16; call f; exit; f: *(u8 *)(r2 - 4) = 1; r1 = r2; call g; exit; "
            "g: r1 += -8; *(u64 *)(r1 + 0) = 1; exit",
            24,
        ),
        (
            "r3 = r10; r3 += -16; r2 = f ll; r1 = 4; r4 = 0; call bpf_loop; exit; "
            "f: *(u8 *)(r2 - 4) = 1; exit",
            20,
        ),
        (
            "r1 = r10; r1 += -16; *(u64 *)(r10 - 24) = r1; r1 += -8; call f; exit; "
            "f: r2 = *(u64 *)(r1 + 0); *(u8 *)(r2 - 32) = 1; exit",
            48,
        ),
        # Helpers and kernel functions go upwards.
        ("r1 = r10; r1 += -16; call kfunc 7; exit", 16),
    ],
)
def test_depth(text: str, depth: int) -> None:
    """The deepest byte that an address in the frame may reach."""
    found = use(text)
    assert found.deepest[0] == depth
    assert found.is_known.all()


@pytest.mark.parametrize(
    "text",
    [
        "r2 = r10; r2 += r1; *(u8 *)(r2 + 0) = 1; r0 = 0; exit",
        "r2 = r10; r2 -= r1; *(u8 *)(r2 + 0) = 1; r0 = 0; exit",
        "r1 = r10; call f; exit; f: r1 += r2; *(u8 *)(r1 + 0) = 1; r0 = 0; exit",
        "r1 = r10; call f; exit; f: call f; exit",
        "r2 = r10; l: r2 += -8; *(u8 *)(r2 + 0) = 1; if r1 == 0 goto l; r0 = 0; exit",
    ],
)
def test_unclear_frame(text: str) -> None:
    """Where an address might go anywhere, that is said."""
    assert not use(text).is_known[0]


def test_room_in_a_chain() -> None:
    """All frames of a chain share 512 bytes; each is rounded up to 32."""
    text = "*(u64 *)(r10 - 72) = 1; call f; exit; f: *(u64 *)(r10 - 8) = 1; r0 = 0; exit"
    assert use(text).room.tolist() == [512 - 32 - 72, 512 - 96 - 8]


def test_room_with_tail_calls() -> None:
    """What calls a subprog that makes tail calls has less than 256 bytes; nothing else has.

    The main program may make them itself, and so may what it calls, below that limit.
    """
    text = "call f; call bpf_tail_call; exit; f: r0 = 0; exit"
    assert use(text).room.tolist() == [512 - 32, 512 - 32]
    text = "call f; call g; exit; f: call bpf_tail_call; exit; g: r0 = 0; exit"
    assert use(text).room.tolist() == [256 - 32, 512 - 32, 512 - 32]


def test_recursion_has_no_room() -> None:
    """A chain without end has none."""
    assert (use("call f; exit; f: call f; exit").room < 0).all()


@pytest.mark.parametrize("width", [4, 7], ids=["32", "64"])
@pytest.mark.parametrize("operation", range(0x00, 0xD0, 0x10), ids=hex)
def test_a_range_holds_what_is_computed(operation: int, width: int) -> None:
    """Of any two numbers in ranges, the result is in the range of the result."""
    lots = random.Random(operation * 16 + width)
    n_known = 0
    for _ in range(3000):
        ends = [lots.choice([0, 1, 31, 63, 2**31 - 1, 2**31, 2**32 - 1]) for _ in range(2)]
        left = min(ends), max(ends)
        low = lots.choice([0, 1, 3, 24, 31, 1000])
        right = low, low + lots.choice([0, 0, 1, 7])
        found = computed(operation | width | 8, 0, left, right)
        if found is None:
            continue
        n_known += 1
        one, other = lots.randint(*left), lots.randint(*right)
        result = compute(operation | width | 8, 0, one, other, other)
        if result is not None:
            signed = result - (1 << 64) if result >> 63 else result
            assert found[0] <= signed <= found[1], (left, right, one, other, found, signed)
    assert n_known or operation == 0x80
