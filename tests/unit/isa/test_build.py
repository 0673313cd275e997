"""Builders."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.isa import R0, R1, R2, R3, R10

# What clang 19 makes of the same text.
BUILT = [
    (isa.mov(R1, -5), "b7010000fbffffff"),
    (isa.mov(R1, 0xFFFFFFFF), "b7010000ffffffff"),
    (isa.mov32(R2, R1), "bc12000000000000"),
    (isa.alu("add", R1, 1), "0701000001000000"),
    (isa.alu("s>>=", R1, 4), "c701000004000000"),
    (isa.alu("s/=", R1, -3), "37010100fdffffff"),
    (isa.alu("smod", R1, R2, width=32), "9c21010000000000"),
    (isa.neg(R1, width=32), "8401000000000000"),
    (isa.movsx(R1, R2, 32), "bf21200000000000"),
    (isa.byte_swap("bswap", R1, 32), "d701000020000000"),
    (isa.ld_imm64(R1, 0x123456789), "18010000896745230000000001000000"),
    (isa.ld_imm64(R1, -1), "18010000ffffffff00000000ffffffff"),
    (isa.ld_imm64(R1, 5, 1), "18110000050000000000000000000000"),
    (isa.ld_func(R1, -2), "18410000feffffff0000000000000000"),
    (isa.load("u8", R1, R10, -8), "71a1f8ff00000000"),
    (isa.load("s32", R1, R10, 8), "81a1080000000000"),
    (isa.store("u32", R10, -4, -1), "620afcffffffffff"),
    (isa.store("u64", R10, -4, R1), "7b1afcff00000000"),
    (isa.atomic("add", "u64", R1, 0, R2), "db21000000000000"),
    (isa.atomic("fetch_add", "u64", R1, 0, R0), "db01000001000000"),
    (isa.atomic("cmpxchg", "u32", R1, 0, R3), "c3310000f1000000"),
    (isa.atomic("load_acquire", "u8", R1, 0, R2), "d321000000010000"),
    (isa.jump("s>", R1, -5, 3), "65010300fbffffff"),
    (isa.jump("jne", R1, R2, -1, width=32), "5e21ffff00000000"),
    (isa.ja(-1), "0500ffff00000000"),
    (isa.nop(), "0500000000000000"),
    (isa.gotol(0x12345), "0600000045230100"),
    (isa.may_goto(4), "e500040000000000"),
    (isa.call_helper(1), "8500000001000000"),
    (isa.call_helper("bpf_map_lookup_elem"), "8500000001000000"),
    (isa.call_subprog(-2), "85100000feffffff"),
    (isa.call_kfunc(7, 2), "8520020007000000"),
    (isa.exit_(), "9500000000000000"),
]


@pytest.mark.parametrize(("insns", "encoded"), BUILT)
def test_built(insns: isa.Insns, encoded: str) -> None:
    """A builder makes the instruction that its name says."""
    assert isa.to_bytes(insns).hex() == encoded


REFUSED: list[tuple[Callable[[], isa.Insns], str]] = [
    (lambda: isa.mov(R1, 1 << 32), "does not fit the 32 bits"),
    (lambda: isa.mov(13, 1), "no register r13"),
    (lambda: isa.ja(1 << 15), "16 bits of ja"),
    (lambda: isa.gotol(1 << 31), "32 bits of gotol"),
    (lambda: isa.load("u128", R1, R2, 0), "no access size"),
    (lambda: isa.load("u8", R1, R2, -32769), "16 bits"),
    (lambda: isa.alu("pow", R1, 2), "no instruction pow64_imm"),
    (lambda: isa.movsx(R1, R2, 7), "no instruction movsx64_7"),
    (lambda: isa.atomic("add", "u8", R1, 0, R2), "no instruction atomic_add_b"),
    (lambda: isa.call_helper("bpf_no_such"), "no helper"),
    (lambda: isa.ld_imm64(R1, 1 << 64), "64 bits"),
    (lambda: isa.ld_imm64(R1, 0, 7), "no form 7"),
]


@pytest.mark.parametrize(("build", "what"), REFUSED)
def test_refused(build: Callable[[], isa.Insns], what: str) -> None:
    """An argument that fits no field is an error that names it."""
    with pytest.raises(OptionError, match=what):
        build()


def test_register_is_no_constant() -> None:
    """An operand is a register if it is a Reg and a constant if it is a plain number."""
    assert isa.is_alu(isa.mov(R1, R2)).all()
    assert isa.src(isa.mov(R1, R2))[0] == 2
    assert isa.mov(R1, 2)["imm"][0] == 2


def test_concat_of_nothing() -> None:
    """Joining no arrays gives no instructions of the right type."""
    assert isa.concat([]).dtype == isa.INSN
