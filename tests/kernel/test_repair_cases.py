"""Small programs that the running kernel refuses, a kind of trouble each, and their repair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import bpfpatch as bp
from bpfpatch import kernel
from bpfpatch.facts.kinds import ProgType
from bpfpatch.repair import Order, Repaired, repair_program
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

LOOKUP = """
    r1 = 0
    *(u32 *)(r10 - 4) = r1
    r2 = r10
    r2 += -4
    ld_pseudo r1, 1, MAP
    call 1
"""
"""Looks up entry 0 of a map whose values have 64 bytes."""
PACKET = "r7 = *(u32 *)(r1 + 0); r8 = *(u32 *)(r1 + 4);"


@dataclass(frozen=True)
class Trouble:
    """One program that is refused.

    Attributes:
        name: of the trouble.
        text: assembly; MAP is a map's descriptor.
        kinds: mendings that are expected, in order.
        type: of the program.
    """

    name: str
    text: str
    kinds: tuple[str, ...]
    type: str = "socket_filter"


TROUBLES = [
    Trouble("unset-at-start", "if r1 == 7 goto l; r8 = 1; l: r0 = r8; exit", ("unset",)),
    Trouble(
        "unset-after-call",
        "r6 = r1; r3 = 1; if r6 == 7 goto l; call 7; l: r0 = r3; exit",
        ("unset",),
    ),
    Trouble(
        "unset-after-two-calls",
        "r6 = *(u32 *)(r1 + 0); r3 = 1; if r6 == 7 goto l; if r6 == 8 goto m; call 7; goto l;"
        "m: call 7; l: r0 = r3; exit",
        ("unset", "unset"),
    ),
    Trouble("unset-result", "if r1 == 7 goto l; r0 = 0; l: exit", ("unset",)),
    Trouble(
        "unset-in-subprog",
        "call f; exit; f: if r1 == 7 goto l; r8 = 1; l: r0 = r8; exit",
        ("unset",),
    ),
    Trouble(
        "unset-argument",
        "r6 = r1; call 7; r1 = r6; call f; exit; f: r0 = r3; exit",
        ("unset",),
    ),
    Trouble(
        "unset-in-loop",
        "r6 = 0; r3 = 0; l: r2 = r3; call 7; r6 += 1; if r6 < 4 goto l; r0 = 0; exit",
        ("unset",),
    ),
    Trouble(
        "spill-of-32-bits",
        PACKET + "*(u32 *)(r10 - 4) = r7; r2 = r7; r2 += 14; if r2 > r8 goto l;"
        "r1 = *(u32 *)(r10 - 4); r0 = *(u8 *)(r1 + 0); r0 = 2; exit; l: r0 = 1; exit",
        ("spill",),
        "xdp",
    ),
    Trouble(
        "spill-slot-shared",
        PACKET + "r3 = *(u32 *)(r1 + 12); *(u32 *)(r10 - 4) = r3; r6 = *(u32 *)(r10 - 4);"
        "*(u32 *)(r10 - 4) = r7; r2 = r7; r2 += 14; if r2 > r8 goto l;"
        "r1 = *(u32 *)(r10 - 4); r0 = *(u8 *)(r1 + 0); r0 = r6; exit; l: r0 = 1; exit",
        ("spill",),
        "xdp",
    ),
    Trouble(
        "spill-of-two-values",
        PACKET + "r3 = *(u32 *)(r1 + 12); if r3 == 7 goto k; *(u32 *)(r10 - 4) = r7; goto j;"
        "k: r3 <<= 32; r3 += 5; *(u32 *)(r10 - 4) = r3; j: r0 = *(u32 *)(r10 - 4);"
        "r0 = 1; exit",
        ("spill",),
        "xdp",
    ),
    Trouble(
        "correlated-branches",
        "r6 = *(u32 *)(r1 + 0); r7 = r10; r7 += -8; *(u64 *)(r10 - 8) = 5;"
        "if r6 == 6 goto l; r7 = 0; l: r0 = 0; if r6 != 6 goto m; r0 = *(u64 *)(r7 + 0); m: exit",
        ("guard-scalar",),
    ),
    Trouble(
        "correlated-with-a-constant",
        "r6 = *(u32 *)(r1 + 0); r7 = r10; r7 += -8; *(u64 *)(r10 - 8) = 5;"
        "if r6 == 6 goto l; r7 = 44; l: r0 = 0; if r6 != 6 goto m; r0 = *(u64 *)(r7 + 0); m: exit",
        ("guard-scalar",),
    ),
    Trouble(
        "correlated-with-a-range",
        "r6 = *(u32 *)(r1 + 0); r9 = *(u8 *)(r1 + 12); r7 = r10; r7 += -8; *(u64 *)(r10 - 8) = 5;"
        "if r6 == 6 goto l; r7 = r9; l: r0 = 0; if r6 != 6 goto m; r0 = *(u64 *)(r7 + 0); m: exit",
        ("guard-scalar",),
    ),
    Trouble(
        "correlated-with-any-number",
        "r6 = *(u32 *)(r1 + 0); call 7; r9 = r0; r7 = r10; r7 += -8; *(u64 *)(r10 - 8) = 5;"
        "if r6 == 6 goto l; r7 = r9; l: r0 = 0; if r6 != 6 goto m; r0 = *(u64 *)(r7 + 0); m: exit",
        ("impossible",),
    ),
    Trouble(
        "correlated-and-spilled",
        "r6 = *(u32 *)(r1 + 0); call 7; *(u64 *)(r10 - 16) = r0; r7 = r10; r7 += -8;"
        "*(u64 *)(r10 - 8) = 5; if r6 != 6 goto l; *(u64 *)(r10 - 16) = r7; l: r0 = 0;"
        "if r6 != 6 goto m; r7 = *(u64 *)(r10 - 16); r0 = *(u64 *)(r7 + 0); m: exit",
        ("impossible",),
    ),
    Trouble(
        "correlated-through-memory",
        "r9 = r1; r6 = *(u32 *)(r1 + 0); call 7; r8 = r0; r7 = r10; r7 += -8;"
        "*(u64 *)(r10 - 8) = 5;"
        "if r6 == 6 goto l; r7 = r8; l: r0 = 0; r6 = *(u32 *)(r9 + 0); if r6 != 6 goto m;"
        "r0 = *(u64 *)(r7 + 0); m: exit",
        ("thread",),
    ),
    Trouble(
        "correlated-release",
        "r6 = *(u32 *)(r1 + 0); r8 = 0; if r6 == 6 goto k; ld_pseudo r1, 1, RING; r2 = 8; r3 = 0;"
        "call 131; r8 = r0; k: r0 = 0; if r6 != 6 goto n; exit;"
        "n: if r8 == 0 goto l; r1 = r8; r2 = 0; call 132; l: r0 = 0; exit",
        ("impossible",),
    ),
    Trouble(
        "null",
        LOOKUP.replace("MAP", "HASH") + "r0 = *(u64 *)(r0 + 0); exit",
        ("guard-scalar",),
    ),
    Trouble(
        "null-then-added",
        LOOKUP.replace("MAP", "HASH")
        + "r0 += 8; if r0 == 8 goto l; r0 = *(u64 *)(r0 + 0); exit; l: r0 = 0; exit",
        ("null-math",),
    ),
    Trouble(
        "argument-is-a-number",
        "r6 = *(u32 *)(r1 + 0); r2 = r10; r2 += -8; *(u64 *)(r10 - 8) = 0; if r6 == 6 goto l;"
        "r2 = 0; l: r0 = 0; if r6 != 6 goto m; ld_pseudo r1, 1, MAP; call 1; r0 = 0; m: exit",
        ("guard-scalar",),
    ),
    Trouble(
        "index-into-a-map",
        "r6 = *(u32 *)(r1 + 0);" + LOOKUP
        + "if r0 == 0 goto l; r6 &= 127; r0 += r6; r0 = *(u8 *)(r0 + 0); exit; l: exit",
        ("guard-index",),
    ),
    Trouble(
        "index-used-later",
        "r6 = *(u32 *)(r1 + 0); r9 = *(u32 *)(r1 + 4);" + LOOKUP
        + "if r0 == 0 goto l; r6 &= 127; r0 += r6; if r9 == 3 goto k; r0 = 0; exit;"
        "k: r0 = *(u8 *)(r0 + 0); exit; l: exit",
        ("guard-index",),
    ),
    Trouble(
        "index-that-may-be-negative",
        "r6 = *(u32 *)(r1 + 0); r9 = *(u32 *)(r1 + 4);" + LOOKUP
        + "if r0 == 0 goto l; r0 += 16; r6 &= 63; r6 -= 32; r0 += r6; if r9 == 3 goto k; r0 = 0;"
        "exit; k: r0 = *(u8 *)(r0 + 0); exit; l: exit",
        ("guard-index",),
    ),
    Trouble(
        "index-into-the-stack",
        "r6 = *(u32 *)(r1 + 0); *(u64 *)(r10 - 16) = 1; *(u64 *)(r10 - 8) = 2; r2 = r10; r2 += -16;"
        "r6 &= 31; r2 += r6; if r6 > 40 goto l; r0 = *(u8 *)(r2 + 0); exit; l: r0 = 0; exit",
        ("guard-index",),
    ),
    Trouble(
        "unbounded-addition",
        "r6 = *(u32 *)(r1 + 0); r9 = *(u32 *)(r1 + 4);" + LOOKUP
        + "if r0 == 0 goto l; r9 <<= 32; r6 |= r9; r0 += r6; r0 = *(u8 *)(r0 + 0); l: exit",
        ("guard-index",),
    ),
    Trouble(
        "unbounded-addition-on-both-sides",
        "r6 = *(u64 *)(r1 + 0);"
        + LOOKUP
        + "if r0 == 0 goto l; r0 += 16; r0 += r6; r0 = *(u8 *)(r0 + 0); l: exit",
        ("guard-index", "guard-index"),
        "kprobe",
    ),
    Trouble(
        "modulo",
        "r6 = *(u32 *)(r1 + 0); *(u64 *)(r10 - 16) = 1; *(u64 *)(r10 - 8) = 2;"
        "r3 = 4; r6 %= r3; r6 <<= 2; r2 = r10; r2 += -16; r2 += r6; r0 = *(u32 *)(r2 + 0); exit",
        ("guard-index",),
    ),
    Trouble(
        "packet-not-compared",
        PACKET + "r6 = *(u32 *)(r1 + 8); r2 = r7; r2 += 14; if r2 > r8 goto l; r0 = 0;"
        "if r6 != 3 goto m; r0 = *(u8 *)(r7 + 20); m: exit; l: r0 = 1; exit",
        ("guard-packet",),
        "xdp",
    ),
    Trouble(
        "packet-end-in-the-caller",
        PACKET + "*(u64 *)(r10 - 8) = r8; r2 = r10; r2 += -8; r1 = r7; call f; r0 = 1; exit;"
        "f: r0 = *(u8 *)(r1 + 0); exit",
        ("guard-packet",),
        "xdp",
    ),
    Trouble(
        "packet-with-an-index",
        PACKET + "r6 = *(u32 *)(r1 + 12); r7 += r6; r2 = r7; r2 += 1; if r2 > r8 goto l;"
        "r0 = *(u8 *)(r7 + 0); l: r0 = 1; exit",
        ("guard-packet",),
        "xdp",
    ),
    Trouble(
        "size-without-bounds",
        "r6 = *(u32 *)(r1 + 0);" + LOOKUP
        + "if r0 == 0 goto l; r1 = r0; r2 = r6; r3 = 0; call 4; r0 = 0; l: exit",
        ("guard-size",),
        "kprobe",
    ),
    Trouble(
        "size-that-may-be-0",
        "r6 = *(u32 *)(r1 + 0); r6 &= 7; *(u64 *)(r10 - 8) = 0; r1 = r10; r1 += -8; r2 = r6;"
        "call 6; r0 = 0; exit",
        ("guard-size",),
        "kprobe",
    ),
    Trouble("moved-context", "r1 += 4; r0 = *(u32 *)(r1 + 0); exit", ("move",)),
    Trouble(
        "moved-context-used-again",
        "r1 += 4; r0 = *(u32 *)(r1 + 0); r2 = *(u32 *)(r1 + 4); r0 += r2; exit",
        ("move", "move"),
    ),
    Trouble(
        "bits-of-a-pointer",
        "*(u64 *)(r10 - 8) = 0; r2 = r10; r2 += -8; r2 |= 4; r0 = *(u8 *)(r2 + 0); exit",
        ("or",),
    ),
    Trouble(
        "copy-of-32-bits",
        PACKET + "w2 = w7; r3 = r7; r3 += 14; if r3 > r8 goto l; r0 = *(u8 *)(r2 + 0);"
        "l: r0 = 1; exit",
        ("wide",),
        "xdp",
    ),
    Trouble(
        "address-cut-to-32-bits",
        PACKET + "r7 <<= 32; r6 = 1; r7 >>= 32; r2 = r7; r2 += 14; if r2 > r8 goto l;"
        "r0 = *(u8 *)(r7 + 0); l: r0 = 1; exit",
        ("wide",),
        "xdp",
    ),
    Trouble(
        "addition-on-32-bits",
        PACKET + "r2 = r7; w2 += 14; if r2 > r8 goto l; r0 = *(u8 *)(r7 + 0); l: r0 = 1; exit",
        ("wide",),
        "xdp",
    ),
    Trouble("value-returned", "r0 = *(u32 *)(r1 + 0); exit", ("guard-return",), "cgroup_skb"),
    Trouble(
        "two-at-once",
        "r6 = *(u32 *)(r1 + 0); if r6 == 1 goto k; r8 = 1; k: r7 = 0; if r6 != 6 goto l; r7 = r10;"
        "r7 += -8; *(u64 *)(r10 - 8) = 5; l: r0 = r8; if r6 != 6 goto m; r0 = *(u64 *)(r7 + 0);"
        "m: exit",
        ("guard-scalar", "unset"),
    ),
    Trouble(
        "with-a-reference",
        "r6 = *(u32 *)(r1 + 0); r7 = 0; ld_pseudo r1, 1, RING; r2 = 8; r3 = 0; call 131;"
        "if r0 == 0 goto l; r8 = r0; if r6 != 6 goto k; r7 = r10; r7 += -8;"
        "k: *(u64 *)(r10 - 8) = 0; r1 = 0; if r6 != 6 goto m; r1 = *(u64 *)(r7 + 0);"
        "m: *(u64 *)(r8 + 0) = r1; r1 = r8; r2 = 0; call 132; l: r0 = 0; exit",
        ("guard-scalar",),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def maps() -> Iterator[dict[str, int]]:
    """Descriptors of the maps that the programs name."""
    need_bpf()
    with (
        kernel.Map.create("array", 4, 64, 1) as array,
        kernel.Map.create("hash", 4, 64, 2) as table,
        kernel.Map.create("ringbuf", 0, 0, 4096) as ring,
    ):
        yield {"MAP": array.fd, "HASH": table.fd, "RING": ring.fd}


def repaired(trouble: Trouble, maps: dict[str, int]) -> Repaired:
    """A program, repaired."""
    text = trouble.text
    for name, fd in maps.items():
        text = text.replace(f"1, {name}", f"1, {fd}")
    return repair_program(bp.asm.assemble(text.replace(";", "\n")), ProgType.of(trouble.type))


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_repaired(trouble: Trouble, maps: dict[str, int]) -> None:
    """The program is refused, and loads after the mendings that fit."""
    done = repaired(trouble, maps)
    (program,) = done.report.programs
    assert program.is_loaded, program.reason
    assert not program.was_loaded
    assert tuple(mending.kind for mending in done.report.mendings) == trouble.kinds


def test_orders_are_told(maps: dict[str, int]) -> None:
    """What is no guard says by what it was shown to change nothing."""
    for trouble in TROUBLES[:1] + TROUBLES[7:8]:
        mendings = repaired(trouble, maps).report.mendings
        assert mendings
        for mending in mendings:
            assert mending.order is Order.SAME
            assert mending.shown_by


def test_a_guard_returns_what_is_asked_for(maps: dict[str, int]) -> None:
    """Without a wish a program returns what drops the packet; else the value given."""
    text = PACKET + "r0 = *(u8 *)(r7 + 0); exit"
    program = bp.asm.assemble(text.replace(";", "\n"))
    for on_guard, value in ((None, 0), (7, 7)):
        done = repair_program(program, ProgType.XDP, on_guard=on_guard)
        assert done.report.is_whole
        assert f"r0 = {value:#x}" in bp.asm.format_program(done.code.program)


def test_what_the_kernel_lacks_is_not_mended() -> None:
    """A helper that there is not is said to be missing."""
    done = repair_program(bp.asm.assemble("call 9999\nexit"))
    (program,) = done.report.programs
    assert program.reason.startswith("not mended, since this kernel does not have or allow it")
    assert not done.report.mendings


def test_a_program_that_is_wrong_stays_refused() -> None:
    """A use of what is no pointer on every path to it is no work for a guard."""
    done = repair_program(bp.asm.assemble("call 7\nr0 = *(u8 *)(r0 + 0)\nexit"))
    (program,) = done.report.programs
    assert not program.is_loaded
    assert "invalid mem access 'scalar'" in program.reason


def test_a_full_frame_keeps_the_slot(maps: dict[str, int]) -> None:
    """Where the frame has no room, a slot that nothing else uses grows in its place."""
    text = (
        PACKET + "*(u64 *)(r10 - 512) = 1; *(u32 *)(r10 - 16) = r7; r2 = r7; r2 += 14;"
        "if r2 > r8 goto l; r1 = *(u32 *)(r10 - 16); r0 = *(u8 *)(r1 + 0); l: r0 = 1; exit"
    )
    done = repair_program(bp.asm.assemble(text.replace(";", "\n")), ProgType.XDP)
    assert done.report.is_whole, list(done.report.lines())
    assert "*(u64 *)(r10 - 0x10) = r7" in bp.asm.format_program(done.code.program)
