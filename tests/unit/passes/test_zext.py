"""zext: after what, with what, and for whom."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import facts, isa
from bpfpatch.asm import assemble
from bpfpatch.errors import OptionError
from bpfpatch.linux.parity.masks import unmask
from bpfpatch.passes import Pipeline, Target
from bpfpatch.passes.setting import Setting
from bpfpatch.passes.zext import Zext
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program

S390 = Target.internal(arch="s390x")
X86 = Target.internal()


def after(
    text: str | Program, target: Target = S390, *, force: bool = False, random: bool = False
) -> Program:
    """A program or assembly, after the pass."""
    program = assemble(text) if isinstance(text, str) else text
    return Pipeline((Zext(force=force, random=random),)).run(program, target).program


def marked(program: Program) -> list[tuple[int, int]]:
    """(slot, register) of each of the kernel's marks."""
    is_mark = (program.insns["code"] == 0xBC) & (program.insns["imm"] == 1)
    slots = np.flatnonzero(is_mark)
    assert (isa.dst(program.insns)[slots] == isa.src(program.insns)[slots]).all()
    return [(int(slot), int(isa.dst(program.insns)[slot])) for slot in slots]


DEFINING = {
    "w3 = 5": 3,
    "w3 += w4": 3,
    "w3 s>>= 2": 3,
    "w3 = -w3": 3,
    "w3 = (s8)w4": 3,
    "w3 s/= 7": 3,
    "r3 = be16 r3": 3,
    "r3 = le32 r3": 3,
    "r3 = bswap16 r3": 3,
    "w3 = *(u8 *)(r10 - 8)": 3,
    "w3 = *(u16 *)(r10 - 8)": 3,
    "w3 = *(u32 *)(r10 - 8)": 3,
    "w3 = atomic_fetch_add((u32 *)(r10 - 8), w3)": 3,
    "w3 = atomic_fetch_xor((u32 *)(r10 - 8), w3)": 3,
    "w3 = xchg32_32(r10 - 8, w3)": 3,
    "w0 = cmpxchg32_32(r10 - 8, w0, w3)": 0,
    "w3 = load_acquire((u8 *)(r10 - 8))": 3,
    "w3 = load_acquire((u32 *)(r10 - 8))": 3,
    "r0 = *(u32 *)skb[4]": 0,
}
OTHER = (
    "r3 = 5",
    "r3 = (s32)r4",
    "r3 = be64 r3",
    "r3 = *(u64 *)(r10 - 8)",
    "r3 = *(s8 *)(r10 - 8)",
    "r3 = 5 ll",
    "lock *(u32 *)(r10 - 8) += w3",
    "r3 = xchg_64(r10 - 8, r3)",
    "r0 = cmpxchg_64(r10 - 8, r0, r3)",
    "*(u32 *)(r10 - 8) = w3",
    "call 7",
)
READS_ALL = "; r0 += r3; exit"


@pytest.mark.parametrize("text", DEFINING)
def test_every_32_bit_definition_is_extended(text: str) -> None:
    """Behind it comes the kernel's mark, on the register that it defines."""
    assert marked(after(text + READS_ALL)) == [(1, DEFINING[text])]


@pytest.mark.parametrize("text", OTHER)
def test_nothing_else_is_extended(text: str) -> None:
    """What defines all 64 bits, or no register, is left alone."""
    assert marked(after(text + READS_ALL)) == []


def test_only_where_somebody_reads_the_upper_half() -> None:
    """A value that only 32-bit instructions use needs no extension."""
    assert marked(after("w3 = 5; w4 = w3; *(u32 *)(r10 - 8) = w4; r0 = 0; exit")) == []


def test_column_decides_where_there_is_one() -> None:
    """What the verifier found out goes before an analysis of our own."""
    program = assemble("w3 = 5; w4 = 6; r0 = 0; exit")
    column = facts.column(facts.ZEXT_DST, np.array([False, True, True, False]))
    assert marked(after(program.with_columns(zext_dst=column))) == [(2, 4)]


def test_inserted_instructions_are_extended() -> None:
    """What another pass puts in is extended where it defines 32 bits, whoever reads it."""
    program = assemble("r3 = 5; r0 = 0; exit")
    column = facts.column(facts.ZEXT_DST, np.zeros(3, bool))
    patches = PatchList(program.with_columns(zext_dst=column))
    patches.insert_after(0, Body.asm("w4 = w3; r5 = r4"))
    Zext().run_for(patches, Setting(S390))
    result = patches.linearize().program
    assert marked(result) == [(2, 4)]
    assert result.columns["zext_dst"].values.tolist() == [False, True, False, False, False, False]


def test_processor_that_extends_by_itself_needs_cmpxchg_alone() -> None:
    """On x86-64 only R0 of a 32-bit cmpxchg may keep an old upper half."""
    text = "r3 = 1; w4 = 5; r0 = r4; w0 = cmpxchg32_32(r10 - 8, w0, w3); exit"
    assert marked(after(text, X86)) == [(4, 0)]
    assert marked(after(text, X86, force=True)) == [(2, 4), (5, 0)]


def test_second_run_adds_nothing() -> None:
    """What is extended is not extended again."""
    once = after("w0 = 5; exit")
    assert after(once).to_bytes() == once.to_bytes()


def test_loadable_form() -> None:
    """For bpf(2) a plain move of the lower half does it, on request."""
    text = "w0 = 5; w3 = 6; exit"
    assert after(text, Target()).to_bytes() == assemble(text).to_bytes()
    once = after(text, Target(), force=True)
    assert once.to_bytes() == assemble("w0 = 5; w0 = w0; w3 = 6; exit").to_bytes()
    assert after(once, Target(), force=True).to_bytes() == once.to_bytes()


def test_loadable_form_keeps_addresses_of_contexts() -> None:
    """A 32-bit load may be of a context's field that is an address: only what is known is not."""
    text = "w2 = *(u32 *)(r1 + 0); r0 = r2; exit"
    program = assemble(text)
    extended = assemble("w2 = *(u32 *)(r1 + 0); w2 = w2; r0 = r2; exit")
    assert after(program, Target(), force=True).to_bytes() == program.to_bytes()
    for kind, wanted in ((facts.MemType.CTX, program), (facts.MemType.PACKET, extended)):
        column = facts.column(facts.MEM_TYPE, np.array([kind, 0, 0]))
        known = program.with_columns(mem_type=column)
        assert after(known, Target(), force=True).to_bytes() == wanted.to_bytes()


def test_random_halves_go_where_nobody_reads() -> None:
    """The register's upper half is overwritten through R11; the same seed does the same."""
    result = after("w3 = 5; w0 = 6; exit", X86, random=True)
    assert unmask(result.insns)["code"].tolist() == [0xB4, 0xB7, 0x67, 0x4F, 0xB4, 0x95]
    assert result.insns["regs"].tolist()[1:4] == [11, 11, 3 | 11 << 4]
    assert result.to_bytes() == after("w3 = 5; w0 = 6; exit", X86, random=True).to_bytes()
    other = Pipeline.parse("zext{random=true,seed=9}").run(assemble("w3 = 5; w0 = 6; exit"), X86)
    assert other.program.to_bytes() != result.to_bytes()


def test_random_halves_are_the_kernels_own_form() -> None:
    """They need R11: for bpf(2) that is an error."""
    with pytest.raises(OptionError, match="random=true makes the kernel's own form"):
        after("w3 = 5; r0 = 0; exit", Target(), random=True)
    with pytest.raises(OptionError, match="seed is 0 or more"):
        Zext(seed=-1)
