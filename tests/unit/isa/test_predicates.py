"""What instructions are and do, against values written down from the RFC and the kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.isa import R0, R1, R2, R3, R10, RefKind

INSNS = {
    "mov": isa.mov(R1, 5),
    "mov32": isa.mov32(R1, R2),
    "imm64": isa.ld_imm64(R1, 5),
    "func": isa.ld_func(R1, 5),
    "load": isa.load("u32", R1, R2, 0),
    "load_signed": isa.load("s16", R1, R2, 0),
    "load64": isa.load("u64", R1, R2, 0),
    "store": isa.store("u64", R10, -8, R1),
    "store_imm": isa.store("u8", R10, -8, 1),
    "packet": isa.make(0x28, imm=12),
    "packet_ind": isa.make(0x40, src=3, imm=12),
    "add": isa.atomic("add", "u64", R1, 0, R2),
    "fetch32": isa.atomic("fetch_add", "u32", R1, 0, R2),
    "cmpxchg": isa.atomic("cmpxchg", "u64", R1, 0, R2),
    "cmpxchg32": isa.atomic("cmpxchg", "u32", R1, 0, R2),
    "acquire": isa.atomic("load_acquire", "u16", R1, 0, R2),
    "release": isa.atomic("store_release", "u8", R1, 0, R2),
    "if": isa.jump("jne", R1, R2, -3),
    "if32": isa.jump("s<", R1, 7, 2, width=32),
    "may_goto": isa.may_goto(1),
    "ja": isa.ja(-1),
    "gotol": isa.gotol(-70000),
    "gotox": isa.make(0x0D, dst=4),
    "helper": isa.call_helper("map_lookup_elem"),
    "subprog": isa.call_subprog(4),
    "kfunc": isa.call_kfunc(77),
    "callx": isa.make(0x8D, dst=3),
    "exit": isa.exit_(),
    "le32": isa.byte_swap("le", R1, 32),
    "be64": isa.byte_swap("be", R1, 64),
    "bswap16": isa.byte_swap("bswap", R1, 16),
    "movsx32": isa.movsx(R1, R2, 8, width=32),
    "neg": isa.neg(R3),
    "zext": isa.make(0xBC, 1, 1, 0, 1),
    "nospec": isa.make(0xC2),
}
LOADS = {"load", "load_signed", "load64"}
PACKETS = {"packet", "packet_ind"}
ATOMICS = {"add", "fetch32", "cmpxchg", "cmpxchg32", "acquire", "release"}
CONDS = {"if", "if32", "may_goto"}
UNCONDS = {"ja", "gotol", "gotox"}
CALLS = {"helper", "subprog", "kfunc", "callx"}
ALUS = {"mov", "mov32", "le32", "be64", "bswap16", "movsx32", "neg", "zext"}

CASES: list[tuple[Callable[[isa.Insns], isa.Mask], set[str]]] = [
    (isa.is_ld_imm64, {"imm64", "func"}),
    (isa.is_load, LOADS),
    (isa.is_packet_load, PACKETS),
    (isa.is_store, {"store", "store_imm"}),
    (isa.is_atomic, ATOMICS),
    (isa.is_alu, ALUS),
    (isa.is_jump, CONDS | UNCONDS),
    (isa.is_cond_jump, CONDS),
    (isa.is_may_goto, {"may_goto"}),
    (isa.is_uncond_jump, UNCONDS),
    (isa.is_call, CALLS),
    (isa.is_helper_call, {"helper"}),
    (isa.is_subprog_call, {"subprog"}),
    (isa.is_kfunc_call, {"kfunc"}),
    (isa.is_exit, {"exit"}),
    (isa.falls_through, set(INSNS) - UNCONDS - {"exit"}),
    # verifier.c is_reg64(): ALU32, loads of up to 32 bits without sign extension, packet
    # loads, byte swaps of less than 64, 32-bit atomics that fetch; not movsx into 64.
    (
        isa.defines_32,
        {"mov32", "load", "packet", "packet_ind", "fetch32", "cmpxchg32", "acquire", "le32"}
        | {"movsx32", "bswap16"},
    ),
]


@pytest.mark.parametrize(
    ("predicate", "names"), CASES, ids=lambda case: getattr(case, "__name__", "")
)
def test_predicate(predicate: Callable[[isa.Insns], isa.Mask], names: set[str]) -> None:
    """A predicate holds for the instructions that it names and for no second slot."""
    program = isa.concat(INSNS.values())
    firsts = np.flatnonzero(~isa.second_slots(program))
    found = predicate(program)
    assert {name for name, is_so in zip(INSNS, found[firsts], strict=True) if is_so} == names
    assert not found[isa.second_slots(program)].any()


REFS = {
    "if": RefKind.JUMP16,
    "if32": RefKind.JUMP16,
    "may_goto": RefKind.JUMP16,
    "ja": RefKind.JUMP16,
    "gotol": RefKind.JUMP32,
    "subprog": RefKind.CALL,
    "func": RefKind.FUNC,
}


@pytest.mark.parametrize("name", INSNS)
def test_ref_kind(name: str) -> None:
    """Jumps, subprog calls and function addresses refer to instructions; nothing else does."""
    assert isa.ref_kinds(INSNS[name])[0] == REFS.get(name, RefKind.NONE)


def bits(*registers: int) -> int:
    """A mask of these registers."""
    return sum(1 << register for register in registers)


ARGS = bits(1, 2, 3, 4, 5)
# name: (reads, writes)
REGISTERS = {
    "mov": (0, bits(1)),
    "mov32": (bits(2), bits(1)),
    "imm64": (0, bits(1)),
    "load": (bits(2), bits(1)),
    "store": (bits(10, 1), 0),
    "store_imm": (bits(10), 0),
    "packet": (bits(6), ARGS | bits(0)),
    "packet_ind": (bits(6, 3), ARGS | bits(0)),
    "add": (bits(1, 2), 0),
    "fetch32": (bits(1, 2), bits(2)),
    "cmpxchg": (bits(0, 1, 2), bits(0)),
    "acquire": (bits(2), bits(1)),
    "release": (bits(1, 2), 0),
    "if": (bits(1, 2), 0),
    "if32": (bits(1), 0),
    "may_goto": (0, 0),
    "ja": (0, 0),
    "gotox": (bits(4), 0),
    "helper": (ARGS, ARGS | bits(0)),
    "subprog": (ARGS, ARGS | bits(0)),
    "kfunc": (ARGS, ARGS | bits(0)),
    "callx": (ARGS | bits(3), ARGS | bits(0)),
    "exit": (bits(0), 0),
    "le32": (bits(1), bits(1)),
    "neg": (bits(3), bits(3)),
    "nospec": (0, 0),
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers(name: str) -> None:
    """An instruction reads and writes the registers that its semantics name."""
    reads, writes = REGISTERS[name]
    assert isa.reads(INSNS[name])[0] == reads
    assert isa.writes(INSNS[name])[0] == writes


def test_second_slot_touches_no_register() -> None:
    """The second slot of an ld_imm64 reads, writes and refers to nothing, whatever is in it."""
    program = isa.concat([isa.make(0x18, 1), isa.make(0x0F, 1, 2), isa.exit_()])
    assert isa.rows(program).tolist()[1] == isa.SECOND
    assert (isa.reads(program)[1], isa.writes(program)[1]) == (0, 0)
    assert isa.min_cpu(program)[1] == 0
    assert not isa.falls_through(program)[1]


def test_hidden_register() -> None:
    """R11 is bit 11, and what uses it is kernel-internal."""
    insn = isa.mov(isa.Reg.AX, R1)
    assert isa.writes(insn)[0] == 1 << 11
    assert isa.min_cpu(insn)[0] == isa.CPU_INTERNAL


@pytest.mark.parametrize(
    ("insn", "is_so"),
    [
        (isa.ja(0), True),
        (isa.ja(1), False),
        (isa.gotol(0), True),
        (isa.gotol(-1), False),
        (isa.may_goto(0), True),
        (isa.may_goto(2), False),
        (isa.jump("jeq", R1, 0, 0), False),
        (isa.mov(R0, R0), False),
        (isa.make(0x0D), False),
    ],
)
def test_nop(insn: isa.Insns, is_so: bool) -> None:
    """Only jumps that always lead to the next instruction and read nothing are nops."""
    assert isa.is_nop(insn)[0] == is_so


CPUS = [
    (isa.mov(R1, R2), 1),
    (isa.store("u8", R1, 0, 5), 1),
    (isa.byte_swap("be", R1, 16), 1),
    (isa.atomic("add", "u32", R1, 0, R2), 1),
    (isa.jump("jlt", R1, 5, 1), 2),
    (isa.jump("jsgt", R1, 5, 1), 1),
    (isa.mov32(R1, 5), 3),
    (isa.jump("jeq", R1, 5, 1, width=32), 3),
    (isa.jump("jlt", R1, 5, 1, width=32), 3),
    (isa.atomic("fetch_add", "u64", R1, 0, R2), 3),
    (isa.atomic("or", "u64", R1, 0, R2), 3),
    (isa.movsx(R1, R2, 8), 4),
    (isa.load("s8", R1, R2, 0), 4),
    (isa.alu("s/=", R1, R2), 4),
    (isa.byte_swap("bswap", R1, 16), 4),
    (isa.gotol(1), 4),
    (isa.may_goto(1), 5),
    (isa.atomic("load_acquire", "u64", R1, 0, R2), 5),
    (isa.make(0xC2), 255),
    (isa.make(0x39, 1, 2), 255),
]


@pytest.mark.parametrize(("insn", "version"), CPUS)
def test_min_cpu(insn: isa.Insns, version: int) -> None:
    """An instruction's version is that of the compilers' -mcpu."""
    assert isa.min_cpu(insn)[0] == version


PREDICATES = [case[0] for case in CASES]


@pytest.mark.parametrize(
    "function", [*PREDICATES, isa.reads, isa.writes, isa.min_cpu, isa.ref_kinds, isa.rows]
)
def test_empty(function: Callable[[isa.Insns], np.ndarray]) -> None:
    """No instructions give no answers."""
    assert function(isa.concat([])).shape == (0,)
