"""The filter that decides which calls are asked about."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from bpfpatch.bpf.errors import KernelError
from bpfpatch.bpf.seccomp import MACHINES, load_filter, machine

NOTIFY, ALLOW = 0x7FC00000, 0x7FFF0000
#: bpf(2)'s number from asm/unistd_64.h and asm-generic/unistd.h, and AUDIT_ARCH_* from audit.h.
BPF = {"x86_64": (0xC000003E, 321), "aarch64": (0xC00000B7, 280)}
I386, ARM = 0x40000003, 0x40000028


def ran(rows: Any, data: bytes) -> int:
    """What a filter of loads, equality jumps and returns says to a struct seccomp_data."""
    at, value = 0, 0
    while True:
        code, if_true, if_false, k = rows[at].tolist()
        at += 1
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x15:
            at += if_true if value == k else if_false
        else:
            assert code == 0x06
            return int(k)


def call(number: int, arch: int, command: int) -> bytes:
    """A call's struct seccomp_data: nr, arch, instruction pointer, six arguments."""
    return struct.pack("<iIQ6Q", number, arch, 0, command, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_only_loads_of_programs_are_asked_about(name: str) -> None:
    """Of all commands of bpf(2), BPF_PROG_LOAD is; of all other calls, none."""
    arch, number = BPF[name]
    rows = load_filter(machine(name))
    assert [c for c in range(64) if ran(rows, call(number, arch, c)) == NOTIFY] == [5]
    assert {ran(rows, call(n, arch, 5)) for n in range(600) if n != number} == {ALLOW}


@pytest.mark.parametrize("name", sorted(MACHINES))
def test_the_command_is_an_int(name: str) -> None:
    """What the upper half of its register holds is nothing to the kernel, and so to us."""
    arch, number = BPF[name]
    assert (
        ran(load_filter(machine(name)), call(number, arch, 0xDEAD_0000_0005 << 16 >> 16)) == NOTIFY
    )


@pytest.mark.parametrize(
    ("arch", "number"), [(I386, 357), (ARM, 386), (I386, 321), (0xC000003E, 321 | 0x40000000)]
)
def test_32_bit_programs_are_let_through(arch: int, number: int) -> None:
    """Calls of i386, arm and x32 are not asked about."""
    for one in MACHINES.values():
        assert ran(load_filter(one), call(number, arch, 5)) == ALLOW


def test_an_unknown_machine_is_said() -> None:
    """A machine whose numbers are not known is an error that says which ones are."""
    with pytest.raises(KernelError, match="x86_64, aarch64, and this is riscv64"):
        machine("riscv64")
