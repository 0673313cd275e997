"""Helpers that print and convert strings."""

from __future__ import annotations

import random

import pytest

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine

U64 = (1 << 64) - 1


def printed(text: str, *arguments: int) -> tuple[str, ...]:
    """What trace_printk prints for a format that the program gets as memory."""
    size = len(text) + 1
    loads = "".join(f"r{3 + k} = {value % (1 << 64):#x} ll;" for k, value in enumerate(arguments))
    machine = Machine(assemble(f"r2 = {size}; {loads} call bpf_trace_printk; exit"))
    return machine.run(mem=text.encode() + b"\0").printed


@pytest.mark.parametrize(
    ("text", "arguments", "wanted"),
    [
        ("plain", (), "plain"),
        ("%d%%", (-3,), "-3%"),
        ("%u", (-3,), "4294967293"),
        ("%llu", (-3,), "18446744073709551613"),
        ("%x %08X", (255, 0xBEEF), "ff 0000BEEF"),
        ("%ld|%5d|", (-1, 7), "-1|    7|"),
        ("%c", (65,), "A"),
    ],
)
def test_formats(text: str, arguments: tuple[int, ...], wanted: str) -> None:
    """The conversions that the kernel has print as its documentation says."""
    assert printed(text, *arguments) == (wanted,)


def test_unknown_conversion_is_refused() -> None:
    """A format that the kernel would refuse prints nothing."""
    assert printed("%f", 1) == ()


def test_too_many_conversions_are_refused() -> None:
    """trace_printk takes three arguments."""
    assert printed("%d %d %d %d", 1, 2, 3) == ()


@pytest.mark.parametrize(
    ("text", "base", "length", "value"),
    [
        (b"123x", 10, 3, 123),
        (b" -7", 0, 3, U64 - 6),
        (b"0x1F", 0, 4, 31),
        (b"0x1F", 16, 4, 31),
        (b"017", 0, 3, 15),
        (b"zz", 10, U64 + 1 - 22, 0),
        (b"99999999999999999999", 10, U64 + 1 - 34, 0),
        (b"9" * 5000, 10, U64 + 1 - 34, 0),
        (b"0" * 5000 + b"7x", 10, 5001, 7),
    ],
)
def test_strtol(text: bytes, base: int, length: int, value: int) -> None:
    """Strtol gives the number and how many bytes it takes, or an errno."""
    program = assemble(
        f"r2 = {len(text)}; r3 = {base}; r4 = r10; r4 += -8; call bpf_strtol; "
        "r1 = *(u64 *)(r10 - 8); *(u64 *)(r10 - 8) = r0; r0 = r1; exit"
    )
    machine = Machine(program)
    outcome = machine.run(mem=text)
    assert (outcome.trace[0].result, outcome.r0) == (length, value)


@pytest.mark.parametrize(("left", "sign"), [(b"abc\0", 0), (b"abd\0", 1), (b"ab\0\0", -1)])
def test_strncmp(left: bytes, sign: int) -> None:
    """Strncmp compares as C's does."""
    program = assemble("r2 = 4; r3 = r1; r3 += 4; call bpf_strncmp; exit")
    result = Machine(program).run(mem=left + b"abc\0").r0
    result -= (1 << 64) if result >> 63 else 0
    assert (result > 0) - (result < 0) == sign


def test_strncmp_is_that_of_bytes() -> None:
    """The sign is that of comparing up to a NUL or the size, whatever follows."""
    rng = random.Random(1)
    machine = Machine(assemble("r2 = 6; r3 = r1; r3 += 8; call bpf_strncmp; exit"))
    signs = set()
    for _ in range(300):
        left, right = (bytes(rng.choice(b"\0ab\xff") for _ in range(8)) for _ in range(2))
        result = machine.run(mem=left + right).r0
        result -= (1 << 64) if result >> 63 else 0
        a, b = (text[:6].split(b"\0")[0] for text in (left, right))
        assert (result > 0) - (result < 0) == (a > b) - (a < b), (left, right)
        signs.add((a > b) - (a < b))
    assert signs == {-1, 0, 1}


def test_more_arguments_than_the_kernel_takes_are_refused() -> None:
    """Snprintf takes twelve, in whole words."""
    code = "r2 = 8; r3 = r1; r3 += 8; r4 = r1; r5 = {}; call bpf_snprintf; exit"
    mem = bytes(8) + b"%d\0".ljust(120, b"\0")
    got = {size: Machine(assemble(code.format(size))).run(mem=mem).r0 for size in (8, 96, 97, 104)}
    assert got == {8: 2, 96: 2, 97: U64 + 1 - 22, 104: U64 + 1 - 22}


def test_probe_read_of_nothing_clears_the_target() -> None:
    """A failing probe_read gives -EFAULT and zeros."""
    program = assemble("r2 = 4; r3 = 0; call bpf_probe_read_kernel; exit")
    outcome = Machine(program).run(mem=b"abcdef")
    assert (outcome.r0, outcome.mem) == (U64 + 1 - 14, b"\0\0\0\0ef")
