"""Refusals of the running kernel, a program for each kind, understood."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import bpfpatch as bp
from bpfpatch import kernel
from bpfpatch.facts.kinds import ProgType
from bpfpatch.linux.log.judge import judge_flat
from bpfpatch.linux.log.messages import Flaw
from bpfpatch.linux.log.refusal import Refusal
from bpfpatch.loader.guess import Guess
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

LOOKUP = (
    "*(u32 *)(r10 - 4) = 7; r2 = r10; r2 += -4; ld_pseudo r1, 1, HASH; call 1;"
    "if r0 != 0 goto +1; exit;"
)
PACKET = "r2 = *(u32 *)(r1 + 0); r3 = *(u32 *)(r1 + 4);"
UNCHECKED = LOOKUP.partition("if r0")[0]
RING = "ld_pseudo r1, 1, RING; r2 = 8; r3 = 0; call 131; if r0 != 0 goto +1; exit;"

CASES: list[tuple[str, str, Flaw, int | None, str]] = [
    ("socket_filter", "r0 = r5; exit", Flaw.UNSET, 5, "r0 = r5"),
    ("socket_filter", "r3 = 0; r0 = *(u8 *)(r3 + 0); exit", Flaw.SCALAR_ACCESS, 3, "r3 + 0x0"),
    ("socket_filter", UNCHECKED + "r0 = *(u8 *)(r0 + 0); exit", Flaw.NULL_ACCESS, 0,
     "r0 + 0x0"),
    ("xdp", PACKET + "r0 = *(u8 *)(r3 + 0); exit", Flaw.TYPE_ACCESS, 3, "r3 + 0x0"),
    ("socket_filter", LOOKUP + "r0 = *(u8 *)(r0 + 64); exit", Flaw.REGION, 0, "r0 + 0x40"),
    ("xdp", PACKET + "r0 = *(u8 *)(r2 + 9); exit", Flaw.PACKET, 2, "r2 + 0x9"),
    ("socket_filter", "r0 = *(u8 *)(r10 + 8); exit", Flaw.STACK_ACCESS, 10, "r10 + 0x8"),
    ("xdp", PACKET + "*(u32 *)(r10 - 4) = r2; r0 = 0; exit", Flaw.SPILL, 2, "r10 - 0x4"),
    ("socket_filter", LOOKUP + "r0 *= 3; exit", Flaw.POINTER_OP, 0, "r0 *= 0x3"),
    ("socket_filter", UNCHECKED + "r0 += 8; exit", Flaw.NULL_MATH, 0, "r0 += 0x8"),
    ("kprobe", "r2 = *(u64 *)(r1 + 0); r3 = r10; r3 += r2; r0 = 0; exit", Flaw.POINTER_MATH, 3,
     "r3 += r2"),
    ("socket_filter", LOOKUP + "r0 += 0x7fffffff; r0 = 0; exit", Flaw.POINTER_MATH, 0,
     "0x7fffffff"),
    ("kprobe", "r2 = *(u64 *)(r1 + 0); r1 = r10; r1 += -8; r3 = 0; call 4; r0 = 0; exit",
     Flaw.UNBOUNDED, 2, "call"),
    ("kprobe", "r2 = *(u64 *)(r1 + 0); r2 &= 7; *(u64 *)(r10 - 8) = 0; r1 = r10; r1 += -8; call 6;"
     "r0 = 0; exit", Flaw.ZERO_SIZE, 2, "call"),
    ("socket_filter", "ld_pseudo r1, 1, HASH; r2 = 0; call 1; r0 = 0; exit", Flaw.ARG_TYPE, 2,
     "call"),
    ("socket_filter", UNCHECKED + "ld_pseudo r1, 1, HASH; r2 = r0; call 1; r0 = 0;"
     "exit", Flaw.ARG_TYPE, 2, "call"),
    ("socket_filter", "r1 += 4; r0 = *(u32 *)(r1 + 0); exit", Flaw.CTX_MOVED, 1, "r1 + 0x0"),
    ("socket_filter", "r2 = *(u32 *)(r1 + 0); r2 &= 4; r1 += r2; r0 = *(u32 *)(r1 + 0); exit",
     Flaw.CTX_VARIABLE, None, ""),
    ("socket_filter", "r0 = *(u32 *)(r1 + 5000); exit", Flaw.CTX, None, "r1 + 0x1388"),
    ("cgroup_skb", "r0 = 7; exit", Flaw.RETURN, 0, "exit"),
    ("socket_filter", RING + "r0 = 0; exit", Flaw.REFERENCE, None, "exit"),
    ("socket_filter", "l: goto l", Flaw.LOOP, None, ""),
    ("socket_filter", "call 9999; exit", Flaw.HELPER, None, "call"),
    ("socket_filter", "call 39; exit", Flaw.HELPER, None, "call"),
    ("socket_filter", "ld_pseudo r1, 1, RING; r2 = r10; r2 += -4; call 1; r0 = 0; exit", Flaw.MAP,
     None, "call"),
    ("socket_filter", "r0 = 0; exit; exit", Flaw.STRUCTURE, None, "exit"),
    ("socket_filter", "r2 = 0; r2 /= 0; r0 = 0; exit", Flaw.DIVISION, None, "r2 /= 0x0"),
    ("socket_filter", "*(u64 *)(r10 - 8) = 0; r0 = *(u64 *)(r10 - 7); exit", Flaw.ALIGNMENT, None,
     "r10 - 0x7"),
    ("socket_filter", "call f; exit; f: *(u64 *)(r10 - 512) = 0; call g; exit;"
     "g: *(u64 *)(r10 - 16) = 0; r0 = 0; exit", Flaw.STACK_DEPTH, None, ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def maps() -> Iterator[dict[str, int]]:
    """Descriptors of the maps that the programs name."""
    need_bpf()
    with (
        kernel.Map.create("hash", 4, 64, 2) as table,
        kernel.Map.create("ringbuf", 0, 0, 4096) as ring,
    ):
        yield {"HASH": table.fd, "RING": ring.fd}


def refusal_of(kind: str, text: str, maps: dict[str, int]) -> Refusal | None:
    """What the kernel says of a program, understood."""
    for name, fd in maps.items():
        text = text.replace(f"1, {name}", f"1, {fd}")
    verdict = judge_flat(bp.asm.assemble(text.replace(";", "\n")), Guess(ProgType.of(kind)))
    if verdict.loaded is not None:
        verdict.loaded.close()
    return verdict.refusal


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2].name.lower())
def test_understood(case: tuple[str, str, Flaw, int | None, str], maps: dict[str, int]) -> None:
    """The kind, the instruction and the register are those that the program is made for."""
    prog_type, text, kind, register, insn = case
    why = refusal_of(prog_type, text, maps)
    assert why is not None
    assert why.kind is kind, why.message
    if register is not None:
        assert why.register == register, why.message
    if insn:
        assert why.where is not None
        assert insn in why.where.text
