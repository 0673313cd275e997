"""What we assemble is what clang assembles."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.asm import Syntax, assemble, format_insns, parse
from bpfpatch.errors import AsmError
from support.machine.asmtools import CLANG, clang_object, clang_text, random_insn, text_section
from support.machine.tools import need

ORDERS = ["little", "big"]

# Of what clang 19 reads: one instruction a row, as its manual forms and as people write them.
FORMS = """
r1 = 5; r1 = -5; r1 = 0x7fffffff; r1 = 0xffffffff; w1 = 0xffffffff; r1 = 010; r1 = 0b11
R1 = 5; r1=5; EXIT; r2 = r1; w2 = w1; r10 = 1; r11 = 1
r1 += 1; r1 -= r2; r1 *= 3; r1 /= r2; r1 %= 7; r1 |= r2; r1 &= 0xff; r1 ^= -1; r1 <<= 3; r1 >>= r2
r1 s>>= 4; r1 s >>= 4; w1 s>>= w2; r1 s/= r2; r1 s%= 3; w1 s/= -1; w1 s%= w2
w1 += 1; w1 -= w2; w1 *= 3; w1 /= w2; w1 %= 7; w1 |= w2; w1 &= 15; w1 ^= w2; w1 <<= 3; w1 >>= w2
r1 = -r1; r1 = - r1; w1 = -w1
r1 = (s8)r2; r1 = (s16) r2; r1 = ( s32 )r2; w1 = (s8)w2; w1 = (s16)w2
r1 = be16 r1; r1 = be32 r1; r1 = be64 r1; r1 = le16 r1; r1 = le32 r1; r1 = le64 r1
r1 = bswap16 r1; r1 = bswap32 r1; r1 = bswap64 r1
r1 = 0x123456789 ll; r1 = -1 ll; r1 = 5 ll; r1 = 18446744073709551615 ll; r1 = 0 ll
r1 = -9223372036854775808 ll
ld_pseudo r1, 1, 5; ld_pseudo r9, 6, 0
r2 = *(u8 *)(r1 + 0); r2 = *(u16 *)(r1 +8); r2 = *(u32*)(r1-8); r2 = *(u64 *)(r1 8)
w2 = *(u8 *)(r1 + 0); w2 = *(u16 *)(r1 + 2); w2 = *(u32 *)(r1 + 4)
r2 = *(s8 *)(r1 + 0); r2 = *(s16 *)(r1 + 2); r2 = *(s32 *)(r1 + 4)
*(u8 *)(r1 + 0) = r2; *(u16*)(r1+0)=r2; *(u32 *)(r1 - 4) = r2; *(u64 *)(r1 + 32767) = r2
*(u8 *)(r1 + 0) = w2; *(u16 *)(r1 + 0) = w2; *(u32 *)(r1 - 4) = w2
*(u8 *)(r1 + 0) = 1; *(u16 *)(r1 + 0) = -1; *(u32 *)(r1 - 4) = 0x10; *(u64 *)(r1 - 32768) = 5
lock *(u64 *)(r1 + 0) += r2; lock *(u64 *)(r1 + 8) &= r2
lock *(u64 *)(r1 + 0) |= r2; lock *(u64 *)(r1 + 0) ^= r2
lock *(u32 *)(r1 + 0) += r2; lock *(u32 *)(r1 + 0) += w2; lock *(u32 *)(r1 + 0) |= w2
lock *(u32 *)(r1 + 0) &= w2; lock *(u32 *)(r1 + 0) ^= w2
r0 = atomic_fetch_add((u64 *)(r1 + 0), r0); r3 = atomic_fetch_and((u64 *)(r1 - 8), r3)
r0 = atomic_fetch_or((u64 *)(r1 + 0), r0); r0 = atomic_fetch_xor((u64 *)(r1 + 0), r0)
w0 = atomic_fetch_add((u32 *)(r1 + 0), w0); w0 = atomic_fetch_or((u32 *)(r1 + 0), w0)
r2 = xchg_64(r1 + 0, r2); w2 = xchg32_32(r1 + 0, w2)
r0 = cmpxchg_64(r1 + 0, r0, r3); w0 = cmpxchg32_32(r1 + 0, w0, w3)
r0 = *(u8 *)skb[4]; r0 = *(u16 *) skb[4]; r0 = *(u32 *)skb[0]
r0 = *(u8 *)skb[r4]; r0 = *(u16 *)skb[r4]; r0 = *(u32 *)skb[r4]
goto +3; goto -1; goto 3; gotol +3; gotol -7000; may_goto +1
if r1 == r2 goto +1; if r1 != 5 goto -1; if r1 > r2 goto +1; if r1 >= 5 goto +1
if r1 < r2 goto +1; if r1 <= 5 goto +1; if r1 s> r2 goto +1; if r1 s>= 5 goto +1
if r1 s< r2 goto +1; if r1 s<= 5 goto +1; if r1 & r2 goto +1; if r1 & 5 goto +1
if w1 == w2 goto +1; if w1 != 5 goto -1; if w1 > w2 goto +1; if w1 >= 5 goto +1
if w1 < w2 goto +1; if w1 <= 5 goto +1; if w1 s> w2 goto +1; if w1 s>= 5 goto +1
if w1 s< w2 goto +1; if w1 s<= 5 goto +1; if w1 & w2 goto +1; if w1 & 5 goto +1
call 1; call +3; call -1; call 0x10; callx r3; exit
r1 = addr_space_cast(r2, 0, 1); r1 = addr_space_cast(r2, 1, 0)
"""

REFUSED = [
    "r1 = be16 r2",
    "r1 = -r2",
    "r13 = 1",
    "goto 40000",
    "*(u8 *)(r1 + 32768) = 5",
    "*(u8 *)(r1) = 5",
    "r1 = 0x1ffffffffffffffff ll",
    "if r1 goto +1",
    "if w1 == r2 goto +1",
    "w1 = r2",
    "callx 1",
    "r2 = cmpxchg_64(r1 + 0, r2, r3)",
    "exit exit",
    "nop",
    "r1: exit; goto r1",
    "w1 = (s32)w2",
    "w2 = *(s8 *)(r1 + 0)",
    "r1 = *(u8 *)skb[4]",
    "goto +-3",
    "r2 = *(u8 *)(r1 + -8)",
]

PROGRAM = """
    .text
    .globl  entry                           # -- Begin function entry
    .p2align        3
    .type   entry,@function
entry:                                      # @entry
# %bb.0:
    r6 = r1; r7 = 0 /* the context
               is kept */
LBB0_1: // a loop
    r7 += 1
    if r7 s< 10 goto LBB0_1
    if r6 == 0 goto LBB0_3; may_goto LBB0_1
1:  r0 = 1
    if r0 > 5 goto 1b
    goto 1f
    r0 = 2
1:  gotol .Lend
LBB0_3:
    r1 = 0x123456789abcdef0 ll
    if r1 == r6 goto lbl$x.y
lbl$x.y: lock: goto lock
.Lend:
    exit
.Lfunc_end0:
    .size   entry, .Lfunc_end0-entry
    .addrsig
"""


@pytest.mark.parametrize("byteorder", ORDERS)
def test_forms(tmp_path: Path, byteorder: isa.ByteOrder) -> None:
    """Every way of writing an instruction that clang takes gives clang's bytes."""
    need(CLANG)
    theirs = clang_text(FORMS, tmp_path, byteorder)
    assert isa.to_bytes(parse(FORMS).insns, byteorder) == theirs


@pytest.mark.parametrize("byteorder", ORDERS)
def test_program(tmp_path: Path, byteorder: isa.ByteOrder) -> None:
    """Labels, numeric labels, comments and directives mean what they mean to clang."""
    need(CLANG)
    theirs = clang_text(PROGRAM, tmp_path, byteorder)
    assert assemble(PROGRAM).to_bytes(byteorder) == theirs


@pytest.mark.parametrize("byteorder", ORDERS)
def test_every_row(tmp_path: Path, byteorder: isa.ByteOrder) -> None:
    """What we print of any instruction that clang 19 has, clang assembles back to it."""
    need(CLANG)
    rng = random.Random(9669)
    # Its text does not say which of three kinds a call is, nor the upper half of an
    # address, and it has no text for ld_ind's constant.
    # Nor does clang take gotol's distance as a number beyond 16 bits.
    lossy = {"call_subprog", "call_kfunc", "ld_ind_b", "ld_ind_h", "ld_ind_w", "gotol"}
    newer = {"gotox", "load_acquire", "store_release"}
    opcodes = [
        opcode
        for opcode in isa.OPCODES
        if opcode.cpu != isa.CPU_INTERNAL
        and opcode.name not in lossy | newer
        and opcode.name.rpartition("_")[0] not in newer
        and not (opcode.kind is isa.Kind.LD_IMM64 and opcode.src)
    ]
    insns = isa.concat(random_insn(opcode, rng) for opcode in opcodes for _ in range(6))
    text = "\n".join(format_insns(insns, Syntax.OBJDUMP, alu32=True))
    assert (
        isa.from_bytes(clang_text(text, tmp_path, byteorder), byteorder).tolist() == insns.tolist()
    )
    assert parse(text).insns.tolist() == insns.tolist()


@pytest.mark.parametrize("text", REFUSED)
def test_refused(tmp_path: Path, text: str) -> None:
    """What clang refuses we refuse."""
    need(CLANG)
    with pytest.raises(subprocess.CalledProcessError):
        clang_object(text + "\n", tmp_path)
    with pytest.raises(AsmError):
        assemble(text)


SOURCE = """
#define noinline __attribute__((noinline))
static noinline long weigh(const unsigned char *data, unsigned len)
{
    long sum = 0;
    for (unsigned i = 0; i < len; i++) {
        if (data[i] & 1) sum += data[i] * 3;
        else if (data[i] % 7u == 2) sum -= (signed char)data[i];
        else sum ^= (long)i << (data[i] & 31);
    }
    return sum;
}
long pick(long kind, const unsigned char *data, unsigned len)
{
    switch (kind) {
    case 0: return weigh(data, len);
    case 1: return weigh(data + 1, len - 1) + 0x123456789abcdefL;
    case 2: return __sync_fetch_and_add((long *)data, len);
    case 3: return -weigh(data, 4);
    default: return len ? (unsigned long)weigh(data, len) / len : -1;
    }
}
"""


@pytest.mark.parametrize("cpu", ["v1", "v3", "v4"])
def test_compiled(tmp_path: Path, cpu: str) -> None:
    """Assembly that clang compiled from C assembles to clang's object, calls resolved."""
    need(CLANG)
    source, listing, out = tmp_path / "c.c", tmp_path / "c.s", tmp_path / "c.o"
    source.write_text(SOURCE)
    compile_it = [CLANG, "--target=bpfel", f"-mcpu={cpu}", "-O2", str(source)]
    subprocess.run([*compile_it, "-S", "-o", str(listing)], check=True)
    subprocess.run([*compile_it, "-c", "-o", str(out)], check=True)
    theirs = isa.from_bytes(text_section(out)).copy()
    ours = assemble(listing.read_text())
    is_call = isa.is_subprog_call(theirs)
    assert is_call.sum() >= 4
    assert np.array_equal(is_call, isa.is_subprog_call(ours.insns))
    # A relocation holds the callee in clang's.
    theirs["imm"][is_call] = ours.insns["imm"][is_call]
    assert ours.insns.tolist() == theirs.tolist()
    assert set(ours.subprogs.names) == {"pick", "weigh"}
    assert set(ours.refs.target[ours.refs.is_entry].tolist()) == {
        int(ours.subprogs.start[ours.subprogs.names.index("weigh")])
    }
