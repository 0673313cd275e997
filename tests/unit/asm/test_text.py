"""Instructions to text; the tools' own syntaxes are compared with the tools elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import Syntax, format_insn, format_insns, format_xlated
from bpfpatch.isa import R1, R2, R3

# (instruction, ASM, OBJDUMP, XLATED)
TEXTS = [
    (isa.mov(R1, -5), "r1 = -0x5", "r1 = -0x5", "(b7) r1 = -5"),
    (
        isa.call_helper(1),
        "call bpf_map_lookup_elem",
        "call 0x1",
        "(85) call bpf_map_lookup_elem#1",
    ),
    (isa.call_helper(99999), "call 0x1869f", "call 0x1869f", "(85) call unknown#99999"),
    (isa.call_subprog(-2), "call pc-0x2", "call -0x2", "(85) call pc-2"),
    (isa.call_kfunc(9), "call kfunc 0x9", "call 0x9", "(85) call kernel-function#9"),
    (isa.call_kfunc(9, 1), "call kfunc 0x9, 0x1", "call 0x9", "(85) call kernel-function#9"),
    (isa.ld_imm64(R1, -1), "r1 = -0x1 ll", "r1 = -0x1 ll", "(18) r1 = 0xffffffffffffffff"),
    (
        isa.ld_imm64(R1, 7 | 8 << 32, 2),
        "ld_pseudo r1, 0x2, 0x800000007",
        "ld_pseudo r1, 0x2, 0x7",
        "(18) r1 = map[id:7][0]+8",
    ),
    (isa.ld_imm64(R1, 7, 1), *["ld_pseudo r1, 0x1, 0x7"] * 2, "(18) r1 = map[id:7]"),
    (isa.ld_func(R1, 4), *["ld_pseudo r1, 0x4, 0x4"] * 2, "(18) r1 = subprog[+4]"),
    (
        isa.make(0x48, src=3, imm=4),
        "r0 = *(u16 *)skb[r3 + 0x4]",
        "r0 = *(u16 *)skb[r3]",
        "(48) r0 = *(u16 *)skb[r3 + 4]",
    ),
    (isa.make(0xFF, 1, 2, -1, 5), ".8byte 0x5ffff21ff", "<unknown>", "BUG_ff"),
    (isa.make(0x0D, 3), "gotox r3", "gotox r3", "(0d) gotox r3"),
    (
        isa.make(0xBF, 1, 2, 1, 1 << 16),
        *["r1 = addr_space_cast(r2, 0x1, 0x0)"] * 2,
        "(bf) r1 = addr_space_cast(r2, 1, 0)",
    ),
    (isa.make(0xC2), "nospec", "nospec", "(c2) nospec"),
    (isa.make(0x39, 1, 2), *["probe r1 = *(u64 *)(r2 + 0x0)"] * 2, "BUG_ldx_39"),
]


@pytest.mark.parametrize(("insns", "asm", "objdump", "xlated"), TEXTS)
def test_syntaxes(insns: isa.Insns, asm: str, objdump: str, xlated: str) -> None:
    """The syntaxes differ where a tool says less than what the instruction holds."""
    assert format_insn(insns) == isa.describe(insns, 0) == asm
    assert format_insn(insns, Syntax.OBJDUMP) == objdump
    assert format_xlated(insns)[0] == xlated


def test_w_registers() -> None:
    """With alu32 a narrow load or store names a 32-bit register."""
    insns = isa.concat([isa.load("u8", R1, R2, 0), isa.store("u32", R1, 0, R3)])
    assert format_insns(insns) == ["r1 = *(u8 *)(r2 + 0x0)", "*(u32 *)(r1 + 0x0) = r3"]
    assert format_insns(insns, alu32=True) == ["w1 = *(u8 *)(r2 + 0x0)", "*(u32 *)(r1 + 0x0) = w3"]


def test_second_slot_is_empty() -> None:
    """There is one text a slot, and the second of an ld_imm64 has none."""
    program = isa.concat([isa.ld_imm64(R1, 1), isa.exit_()])
    assert format_insns(program) == ["r1 = 0x1 ll", "", "exit"]
    assert format_xlated(program) == ["(18) r1 = 0x1", "", "(95) exit"]


def test_equal_words_with_other_halves() -> None:
    """Two ld_imm64 that differ only in the upper half have texts of their own."""
    program = isa.concat([isa.ld_imm64(R1, 1), isa.ld_imm64(R1, 1 | 1 << 32)])
    assert format_insns(program)[::2] == ["r1 = 0x1 ll", "r1 = 0x100000001 ll"]


def test_jited_call() -> None:
    """In a JITed program's dump the distance is in off, the callee's number in imm."""
    assert format_xlated(isa.make(0x85, src=1, off=61, imm=2)) == ["(85) call pc+61"]


def test_no_instructions() -> None:
    """Nothing is no text."""
    assert format_insns(isa.concat([])) == []


def test_describe_never_fails() -> None:
    """A message about broken code can name any slot of it."""
    insns = np.frombuffer(np.random.default_rng(3).bytes(8 * 2000), isa.INSN).copy()
    insns["code"][::3] = isa.LD_IMM64
    texts = [isa.describe(insns, slot) for slot in range(-1, len(insns) + 1)]
    assert texts[0] == texts[-1] == ""
    assert all(texts[1:-1])


def test_describe_second_slot() -> None:
    """The second slot of an ld_imm64 is described as that ld_imm64."""
    program = isa.concat([isa.make(0x18), isa.make(0x18), isa.ld_imm64(R1, 5)])
    assert isa.describe(program, 3) == isa.describe(program, 2) == "r1 = 0x5 ll"
    assert isa.describe(program, 1) == isa.describe(program, 0)
