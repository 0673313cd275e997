"""How deep a frame is in use, and what is left of the stack."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch.asm import assemble
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackuse import StackUse
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
        ("r2 = r10; r3 = r2; r0 = 7; r3 += -40; r3 += 8; r0 = *(u8 *)(r3 - 2); exit", 40),
        ("lock *(u64 *)(r10 - 64) += r1; r0 = 0; exit", 64),
        ("w1 = load_acquire((u32 *)(r10 - 20)); r0 = 0; exit", 20),
        ("r2 = r10; r2 += -16; *(u64 *)(r10 - 8) = r2; r3 = *(u64 *)(r10 - 8); r3 += -8; exit", 24),
        ("r2 = r10; if r1 == 0 goto on; r2 += -32; on: r0 = *(u8 *)(r2 - 8); exit", 40),
        ("r2 = r10; r2 += -8; w2 += -900; r0 = 0; exit", 8),
    ],
)
def test_depth(text: str, depth: int) -> None:
    """The deepest byte that an address made of R10 and constants may reach."""
    found = use(text)
    assert found.deepest.tolist() == [depth]
    assert found.is_known.tolist() == [True]


@pytest.mark.parametrize(
    "text",
    [
        "r2 = r10; r2 += r1; r0 = 0; exit",
        "r1 -= r10; r0 = 0; exit",
        "r1 = r10; call f; exit; f: r0 = 0; exit",
        "r3 = r10; r2 = r1; call bpf_loop; exit",
        "r2 = r10; l: r2 += -8; if r1 == 0 goto l; r0 = 0; exit",
        "r2 = r10; r2 &= -8; r0 = 0; exit",
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
    """With subprogs and tail calls there are 256."""
    text = "call f; call bpf_tail_call; exit; f: r0 = 0; exit"
    assert use(text).room.tolist() == [256 - 32, 256 - 32]


def test_recursion_has_no_room() -> None:
    """A chain without end has none."""
    assert (use("call f; exit; f: call f; exit").room < 0).all()
