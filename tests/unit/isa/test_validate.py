"""Encodings that break the rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfpatch import isa
from bpfpatch.isa import R1, R2, R10

BAD = [
    (isa.make(0x07, 1, 3, 0, 1), "add64_imm does not use src"),
    (isa.make(0x0F, 1, 2, 5, 0), "add64_reg does not use off"),
    (isa.make(0x0F, 1, 2, 0, 5), "add64_reg does not use imm"),
    (isa.make(0xB7, 1, 0, 8, 5), "mov64_imm does not use off"),
    (isa.make(0x95, 1), "exit does not use dst"),
    (isa.make(0x05, 0, 0, 1, 1), "ja does not use imm"),
    (isa.make(0x06, 0, 0, 1, 1), "gotol does not use off"),
    (isa.make(0x85, 0, 0, 1, 1), "call_helper does not use off"),
    (isa.make(0x61, 1, 2, 0, 1), "ldx_w does not use imm"),
    (isa.make(0x62, 1, 2, 0, 1), "st_w does not use src"),
    (isa.make(0xDC, 1, 2, 0, 16), "be16 does not use src"),
    (isa.make(0x0F, 13, 2), "register r13 in dst does not exist"),
    (isa.make(0x0F, 1, 15), "register r15 in src does not exist"),
    (isa.make(0x0F, 11, 2), "register r11 in dst is kernel-internal"),
    (isa.mov(R10, 1), "r10 is the frame pointer"),
    (isa.load("u64", R10, R1, 0), "r10 is the frame pointer"),
    (isa.atomic("fetch_add", "u64", R1, 0, R10), "r10 is the frame pointer"),
    (isa.make(0x18, 1), "second slot is missing"),
    (isa.concat([isa.make(0x18, 1), isa.exit_()]), "must be 0 in all but imm"),
    (isa.concat([isa.make(0x18, 1), isa.make(0, 1)]), "must be 0 in all but imm"),
    (isa.concat([isa.make(0x18, 1, 0, 1), isa.make(0)]), "ld_imm64 does not use off"),
    (isa.ld_imm64(R1, 1 << 32, 1), "ld_map_fd must have imm 0"),
]


@pytest.mark.parametrize(("insns", "what"), BAD)
def test_violation(insns: isa.Insns, what: str) -> None:
    """A field that breaks the encoding is named."""
    found = isa.reserved_violations(insns)
    assert any(what in text for _, text in found), found


GOOD = [
    isa.mov(R1, -1),
    isa.store("u64", R10, -8, R10),
    isa.jump("jgt", R10, R10, 1),
    isa.atomic("add", "u64", R10, -8, R10),
    isa.atomic("store_release", "u64", R10, -8, R2),
    isa.ld_imm64(R1, -1),
    isa.ld_imm64(R1, 7 | 8 << 32, 2),
    isa.ld_func(R1, -4),
    isa.call_kfunc(5, 1),
    isa.make(0xBF, 1, 2, 1, 1 << 16),
    isa.make(0x40, src=3, imm=4),
    isa.gotol(-5),
    isa.exit_(),
]


@pytest.mark.parametrize("insns", GOOD)
def test_no_violation(insns: isa.Insns) -> None:
    """What the RFC allows is not blamed."""
    assert isa.reserved_violations(insns) == []


def test_all_at_once_in_order() -> None:
    """Every violation of a program is reported, in slot order."""
    program = isa.concat([isa.make(0x95, 1), isa.exit_(), isa.make(0x0F, 13, 14, 1, 1)])
    assert [slot for slot, _ in isa.reserved_violations(program)] == [0, 2, 2, 2, 2]


def test_kernel_internal_form() -> None:
    """AX is taken where the caller says that the program is the kernel's own."""
    program = isa.mov(isa.Reg.AX, 5)
    assert isa.reserved_violations(program)
    assert isa.reserved_violations(program, allow_internal=True) == []


def test_empty() -> None:
    """Nothing breaks no rule."""
    assert isa.reserved_violations(isa.concat([])) == []


_NEARLY = st.builds(
    lambda code, regs, off, imm: code | regs << 8 | off << 16 | imm << 32,
    st.sampled_from(sorted({opcode.code for opcode in isa.OPCODES})),
    st.sampled_from([0, 0x01, 0x10, 0x21, 0x0A, 0xA0, 0x0B, 0xB0, 0x0C]),
    st.sampled_from([0, 1, 8, 16, 32, 0xFFFF]),
    st.sampled_from([0, 1, 16, 0x40, 0xE1, 0xFFFFFFFF]),
)
"""Instructions that exist or nearly do."""


@given(st.lists(_NEARLY | st.integers(0, 2**64 - 1), max_size=40), st.booleans())
def test_what_is_no_suspect_is_whole(words: list[int], allow_internal: bool) -> None:
    """A look at every slot finds what a look at the suspects does."""
    insns = np.array(words, np.uint64).view(isa.INSN)
    everywhere = np.arange(len(insns))
    assert isa.reserved_violations(insns, allow_internal=allow_internal) == (
        isa.reserved_violations(insns, allow_internal=allow_internal, among=everywhere)
    )
    assert isa.unknown(insns).tolist() == isa.unknown(insns, everywhere).tolist()
    assert isa.min_cpu(insns).tolist() == isa.min_cpu(insns, everywhere).tolist()


def test_portions_agree_with_the_whole() -> None:
    """Where a portion ends makes no difference, also between the two slots of an ld_imm64."""
    pair = np.concatenate([isa.ld_imm64(R1, 1 << 40), isa.mov(R2, 3), isa.call_helper(1)])
    few, many = np.tile(pair, 5), np.tile(pair, 20_000)
    for look in (isa.rows, isa.reads, isa.writes, isa.min_cpu, isa.ref_kinds, isa.falls_through):
        assert (look(many) == np.tile(look(few), 4_000)).all()
