"""Our kernel syntax is the kernel's verifier log's and bpftool's."""

from __future__ import annotations

import ctypes
import os
import random
import re
import struct
import subprocess

import pytest

from bpfpatch import isa
from bpfpatch.asm import format_xlated, parse
from support.inputs.bpfobjects import fixture_objects, fixture_path
from support.machine.tools import BPF_SYSCALL, BpftoolError, loaded, need, need_bpf, xlated

BPF_PROG_LOAD = 5
SOCKET_FILTER = 1
LOG_BYTES = 1 << 22

SETUP = """
r1 = 11; r2 = 12; r3 = 13; r4 = 14; r5 = 15; r6 = 16; r7 = 17; r8 = 18; r9 = 19; r0 = 20
*(u64 *)(r10 - 8) = r1; *(u64 *)(r10 - 16) = r1; *(u64 *)(r10 - 24) = r1
"""


def verifier_log(insns: isa.Insns) -> str:
    """What the kernel's verifier says to a socket filter, loaded or not."""
    code, text = insns.tobytes(), ctypes.create_string_buffer(LOG_BYTES)
    code_at = ctypes.create_string_buffer(code, len(code))
    license_at = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "=IIQQIIQ",
        SOCKET_FILTER,
        len(insns),
        ctypes.addressof(code_at),
        ctypes.addressof(license_at),
        2,
        LOG_BYTES,
        ctypes.addressof(text),
    ).ljust(128, b"\0")
    call = ctypes.CDLL(None, use_errno=True).syscall
    fd = call(BPF_SYSCALL[os.uname().machine], BPF_PROG_LOAD, attr, len(attr))
    if fd >= 0:
        os.close(fd)
    return text.value.decode()


def sample(opcode: isa.Opcode, rng: random.Random) -> isa.Insns:
    """An instruction that the verifier accepts after SETUP."""
    dst, src = rng.randrange(1, 6), rng.randrange(6, 10)
    fields = {"dst": dst, "src": src, "off": 0, "imm": rng.choice([1, 7, 31])}
    if opcode.kind in {isa.Kind.STORE, isa.Kind.ATOMIC, isa.Kind.LOAD}:
        is_load = opcode.kind is isa.Kind.LOAD or opcode.name.startswith("load_acquire")
        fields["src" if is_load else "dst"] = 10
        fields["off"] = rng.choice([-8, -16, -24])
    elif opcode.kind is isa.Kind.ALU and opcode.name.startswith(("add", "sub", "and", "or", "mov")):
        fields["imm"] = rng.choice([-1, 5, 0x7FFFFFFF, -70])
    return isa.make(
        opcode.code,
        **{
            field: value if field in opcode.fields else getattr(opcode, field, None) or 0
            for field, value in fields.items()
        },
    )


JUMPS = {isa.Kind.COND_JUMP}
OTHERS = {isa.Kind.ALU, isa.Kind.STORE, isa.Kind.LOAD, isa.Kind.ATOMIC}


@pytest.mark.kernel
@pytest.mark.parametrize("kinds", [JUMPS, OTHERS], ids=["jumps", "others"])
def test_verifier_log(kinds: set[isa.Kind]) -> None:
    """Arithmetic, memory access, atomics and jumps print as in the verifier's log."""
    need_bpf()
    rng = random.Random(618)
    # A cast needs an arena; may_goto an own stack slot. Jumps are apart from the rest so
    # that the verifier knows all values and follows one way only.
    opcodes = [
        opcode
        for opcode in isa.OPCODES
        if opcode.kind in kinds
        and opcode.cpu != isa.CPU_INTERNAL
        and opcode.name not in {"addr_space_cast", "may_goto"}
    ]
    samples = [sample(opcode, rng) for opcode in opcodes for _ in range(2)]
    ends = parse("r1 = 0x123456789 ll; goto +0; gotol +0; call 5; r0 = 0; exit").insns
    insns = isa.concat([parse(SETUP).insns, *samples, ends])
    ours = format_xlated(insns)
    log = verifier_log(insns)
    seen = dict(re.findall(r"^(\d+): (\([0-9a-f]{2}\) .*?)\s*(?:;.*)?$", log, re.MULTILINE))
    assert len(seen) > len(insns) - 5, log[-500:]
    assert {slot: ours[int(slot)] for slot in seen} == seen


# Debian's bpftool is older than these and prints something else.
NEW_NAMES = (
    "bswap",
    "gotol",
    "ldsx",
    "load_acquire",
    "may_goto",
    "mov_percpu",
    "movsx",
    "sdiv",
    "smod",
    "store_release",
)


@pytest.mark.kernel
def test_bpftool_dump() -> None:
    """Dumps of loaded programs print as bpftool prints them, but for symbols' names."""
    need("bpftool")
    need_bpf()
    names = [name for name, _ in fixture_objects() if ".clang-19.v3.el.g.o" in name][::3]
    compared = 0
    for name in names:
        try:
            with loaded(fixture_path(name)) as programs:
                for pin in programs.pins.values():
                    command = ["bpftool", "prog", "dump", "xlated", "pinned", str(pin)]
                    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                    compared += compare(isa.from_bytes(xlated(pin)), out)
        except BpftoolError:
            continue  # not every fixture loads on every kernel
    if names and compared == 0:
        pytest.skip("no fixture loads here")


def compare(insns: isa.Insns, listing: str) -> int:
    """Compare line by line; give how many."""
    ours, found = format_xlated(insns), isa.rows(insns)
    rows = re.findall(r"^\s*(\d+): (\(.*)$", listing, re.MULTILINE)
    for slot, theirs in rows:
        opcode = isa.OPCODES[found[int(slot)]]
        if opcode.name.startswith(NEW_NAMES):
            continue
        if opcode.kind is isa.Kind.CALL:
            # Addresses of helpers are looked up in kallsyms; a subprog's name follows a #.
            is_far = opcode.name == "call_subprog"
            assert not is_far or ours[int(slot)] == theirs.partition("#")[0]
            continue
        assert ours[int(slot)] == theirs
    return len(rows)
