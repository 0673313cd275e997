"""Where ld_imm64 has its second slots."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa


def naive(codes: list[int]) -> list[bool]:
    """The docstring's plain Python."""
    out = [False] * len(codes)
    slot = 0
    while slot < len(codes):
        if codes[slot] == isa.LD_IMM64:
            if slot + 1 < len(codes):
                out[slot + 1] = True
            slot += 2
        else:
            slot += 1
    return out


def test_against_the_naive_walk() -> None:
    """The vectorised answer is that of a walk from the start, also for runs of the code."""
    rng = np.random.default_rng(64)
    for _ in range(300):
        codes = rng.choice([0x18, 0x18, 0x00, 0xB7], rng.integers(0, 12))
        insns = np.zeros(len(codes), isa.INSN)
        insns["code"] = codes
        assert isa.second_slots(insns).tolist() == naive(codes.tolist())


def test_second_slot_starts_none() -> None:
    """A second slot that looks like an ld_imm64 is none."""
    insns = isa.concat([isa.make(0x18), isa.make(0x18), isa.make(0x18), isa.make(0)])
    assert isa.second_slots(insns).tolist() == [False, True, False, True]
    assert isa.is_ld_imm64(insns).tolist() == [True, False, True, False]


def test_cut_off_at_the_end() -> None:
    """An ld_imm64 in the last slot has no second one."""
    insns = isa.concat([isa.exit_(), isa.make(0x18)])
    assert isa.second_slots(insns).tolist() == [False, False]
