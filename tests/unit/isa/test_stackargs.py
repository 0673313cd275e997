"""Arguments from the sixth on: which instructions pass them, and whose register R11 is."""

from __future__ import annotations

import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble

LOADS = [f"r6 = *(u64 *)(r11 + {8 * k})" for k in range(1, 8)]
STORES = [f"*(u64 *)(r11 - {8 * k}) = r1" for k in range(1, 8)]
CONSTANTS = [f"*(u64 *)(r11 - {8 * k}) = -5" for k in range(1, 8)]
REFUSED = [
    "r11 += 1",
    "r11 = r1",
    "r1 = r11",
    "*(u32 *)(r11 - 8) = r1",
    "*(u32 *)(r11 - 8) = 1",
    "*(u64 *)(r11 - 4) = r1",
    "*(u64 *)(r11 + 8) = r1",
    "*(u64 *)(r11 + 0) = r1",
    "*(u64 *)(r11 - 64) = r1",
    "r1 = *(u64 *)(r11 - 8)",
    "r1 = *(u64 *)(r11 + 0)",
    "r1 = *(u64 *)(r11 + 64)",
    "r1 = *(u32 *)(r11 + 8)",
    "r1 = *(s32 *)(r11 + 8)",
    "lock *(u64 *)(r11 - 8) += r1",
    "*(u64 *)(r11 - 8) = r11",
    "*(u64 *)(r1 - 8) = r11",
    "if r11 == 0 goto +0",
]
"""What Linux 7.2 refuses, most of it in its own tests: "R11 is invalid"."""


@pytest.mark.parametrize(("texts", "sign"), [(LOADS, 1), (STORES, -1), (CONSTANTS, -1)])
def test_seven_can_be_passed(texts: list[str], sign: int) -> None:
    """The k-th argument after the fifth is loaded from +8k, and stored to -8k."""
    insns = assemble("\n".join(texts)).insns
    assert isa.stack_args(insns).tolist() == [sign * k for k in range(1, 8)]
    assert isa.reserved_violations(insns) == []
    assert set(isa.min_cpu(insns).tolist()) == {1}
    assert isa.hidden_register(insns) == isa.Reg.R12


@pytest.mark.parametrize("text", REFUSED)
def test_r11_is_good_for_nothing_else(text: str) -> None:
    """Any other use of R11 is the kernel's alone, in its form up to Linux 7.1."""
    insns = assemble(text).insns
    assert not isa.stack_args(insns).any()
    assert isa.reserved_violations(insns)
    assert isa.reserved_violations(insns, allow_internal=True, hidden=12)
    if text != "*(u64 *)(r11 - 8) = r11":
        assert isa.hidden_register(insns) == isa.AX


def test_the_second_half_of_a_constant_passes_nothing() -> None:
    """A number in an ld_imm64 that looks like a store is none."""
    insns = isa.concat([isa.make(0x18, 1, 0), isa.make(0x7B, 11, 1, -8)])
    assert not isa.stack_args(insns).any()


def test_r12_is_the_kernels_where_r11_is_not() -> None:
    """In the form of Linux 7.2 R12 is hidden; in that of 6.18 there is none."""
    insns = assemble("r12 = 5\n*(u64 *)(r11 - 8) = 1").insns
    assert isa.reserved_violations(insns, allow_internal=True, hidden=12) == []
    assert [slot for slot, _ in isa.reserved_violations(insns, allow_internal=True)] == [0]
    assert isa.hidden_register(insns) == isa.Reg.R12


def test_code_without_r11_is_of_either() -> None:
    """Where no instruction names R11 or R12, the older number is given."""
    assert isa.hidden_register(assemble("r0 = 0; exit").insns) == isa.AX
    assert not isa.has_stack_args(assemble("r0 = 0; exit").insns)
