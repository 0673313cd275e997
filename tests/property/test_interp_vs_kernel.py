"""The interpreter and the kernel agree on random programs: R0 (64 bits), memory and maps.

``python tests/property/long.py interp`` runs more of them. What they once disagreed on stands
at the end, one test each.
"""

from __future__ import annotations

import pytest

from bpfpatch import kernel
from bpfpatch.asm import assemble
from support.models.agreement import Agreement, inputs

N_PROGRAMS = 500
PER_TEST = 250

pytestmark = pytest.mark.kernel


@pytest.fixture
def agreement():
    """A pair of maps that programs can use."""
    reason = kernel.available()
    if reason is not None:
        pytest.skip(f"bpf(2) is not allowed here: {reason}")
    with Agreement() as made:
        yield made


@pytest.mark.parametrize("start", range(0, N_PROGRAMS, PER_TEST))
def test_random_programs(agreement: Agreement, start: int) -> None:
    """A program gives the same on each of some memories, one run after the other."""
    for seed in range(start, start + PER_TEST):
        wrong = agreement.check(seed)
        assert not wrong, f"seed {seed}: {wrong}"
    assert agreement.n_run > 0.95 * PER_TEST


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("call 7; exit", "R0"),
        ("r6 = r1; call 7; *(u64 *)(r6 + 8) = r0; r0 = 0; exit", "memory"),
    ],
)
def test_a_difference_is_seen(agreement: Agreement, code: str, what: str) -> None:
    """Random numbers, which the two draw for themselves, are reported as what they change."""
    wrong = agreement.compare(assemble(code.replace(";", "\n")), inputs(1))
    assert wrong.startswith(what)


CASES = {
    "division and modulo by zero": """
        r2 = *(u64 *)(r1 + 0)
        r3 = *(u64 *)(r1 + 8)
        r4 = 0
        r2 /= r4
        r3 %= r4
        w5 = w3
        w5 %= w4
        r0 = r2
        r0 ^= r3
        r0 += r5
        exit
    """,
    "the least number divided by minus one": """
        r2 = -0x8000000000000000 ll
        r3 = -1
        r0 = r2
        r0 s/= r3
        r4 = r2
        r4 s%= r3
        w5 = -0x80000000
        w5 s/= w3
        r0 ^= r4
        r0 ^= r5
        exit
    """,
    "shifts by more than the width": """
        r2 = *(u64 *)(r1 + 0)
        r3 = *(u8 *)(r1 + 8)
        r3 |= 0x40
        r0 = r2
        r0 <<= r3
        w4 = w2
        w4 s>>= w3
        r0 ^= r4
        exit
    """,
    "compare-and-exchange leaves a 32-bit R0 or all of it": """
        r0 = *(u64 *)(r1 + 0)
        r2 = *(u64 *)(r1 + 8)
        w0 = cmpxchg32_32(r1 + 16, w0, w2)
        r3 = r0
        r0 = *(u64 *)(r1 + 24)
        r0 = cmpxchg_64(r1 + 24, r0, r2)
        r0 ^= r3
        exit
    """,
    "a 32-bit exchange clears the upper half": """
        r2 = -1
        w2 = xchg32_32(r1 + 4, w2)
        r0 = r2
        exit
    """,
    "a 16-bit byte swap clears what is above": """
        r2 = *(u64 *)(r1 + 0)
        r0 = r2
        r0 = bswap16 r0
        r3 = r2
        r3 = le16 r3
        r3 <<= 16
        r0 |= r3
        exit
    """,
    "loads with sign": """
        r0 = *(s8 *)(r1 + 1)
        r2 = *(s16 *)(r1 + 3)
        r3 = *(s32 *)(r1 + 5)
        r0 += r2
        r0 ^= r3
        exit
    """,
    "moves with sign, to 32 bits and to 64": """
        r2 = *(u64 *)(r1 + 0)
        w0 = (s8)w2
        r3 = (s16)r2
        r4 = (s32)r2
        r0 += r3
        r0 ^= r4
        exit
    """,
}
"""Corners, by name, each with its code."""


@pytest.mark.parametrize("name", CASES)
def test_corner(agreement: Agreement, name: str) -> None:
    """Both give the same where an instruction's meaning has a corner."""
    assert agreement.compare(assemble(CASES[name]), inputs(7)) == ""
    assert agreement.n_run == 1


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("index", [0, 5, 6, 0xFFFF_FFFF])
def test_updates_beyond_the_last_element(agreement: Agreement, index: int, flags: int) -> None:
    """An array's index is looked at before its flags: beyond the last it is E2BIG, not EEXIST."""
    code = f"""
        *(u32 *)(r10 - 4) = {index - (1 << 32) if index >> 31 else index}
        *(u64 *)(r10 - 16) = 1
        r1 = map[id:{agreement.array_fd}]
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = {flags}
        call 2
        exit
    """
    assert agreement.compare(assemble(code), inputs(0)) == ""
    assert agreement.n_run == 1
