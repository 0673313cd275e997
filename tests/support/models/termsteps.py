"""The prover's terms on numbers, for tests: instances of every row that it claims to know."""

from __future__ import annotations

import random
from typing import Any, Final

from bpfpatch import isa
from bpfpatch.isa import Kind, Opcode
from bpfpatch.prove import Fields, SymbolicCode

SIZE: Final = 16
"""Bytes of memory around R4, which points to the middle."""
KNOWN = (Kind.ALU, Kind.LD_IMM64, Kind.LOAD, Kind.STORE, Kind.COND_JUMP)
REFUSED = ("addr_space_cast", "may_goto")
NUMBERS = (
    0, 1, 7, 31, 32, 33, 63, 64, 255, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) + 5,
    1 << 63, (1 << 64) - 1,
)  # fmt: skip


def has_meaning(opcode: Opcode) -> bool:
    """Whether the prover claims to know a row."""
    is_number = opcode.kind is not Kind.LD_IMM64 or opcode.src == 0
    is_loadable = opcode.cpu != isa.CPU_INTERNAL
    return opcode.kind in KNOWN and is_number and is_loadable and opcode.name not in REFUSED


def instance(opcode: Opcode, rng: random.Random) -> isa.Insns:
    """An instruction of a row on R2 and R3; memory is at R4, with some room on both sides."""
    is_load = opcode.kind is Kind.LOAD
    dst = 4 if opcode.kind is Kind.STORE else 2
    src = 4 if is_load else 3 if "src" in opcode.fields else opcode.src or 0
    imm = opcode.imm
    if imm is None:
        imm = rng.choice((0, 1, 7, -1, -8, 31, 1 << 30, -(1 << 31), rng.randrange(1 << 31)))
        imm = imm if "imm" in opcode.fields else 0
    off = opcode.off or 0
    if is_load or opcode.kind is Kind.STORE:
        off = rng.randrange(-8, 1)
    if opcode.kind is Kind.COND_JUMP:
        off = 2
    insn = isa.make(opcode.code, dst, src, off, imm)
    if opcode.kind is Kind.LD_IMM64:
        return isa.concat([insn, isa.make(0, imm=rng.randrange(-(1 << 31), 1 << 31))])
    return insn


def terms(z3: Any, insn: isa.Insns, regs: dict[int, int], memory: bytes) -> tuple[int, bool, bytes]:
    """The same by the prover's terms."""
    code = SymbolicCode(z3)
    state = code.start()
    base = 1 << 40
    for register, value in {**regs, 4: base}.items():
        state.regs[register] = z3.BitVecVal(value, 64)
    array = state.memory
    for index, byte in enumerate(memory):
        array = z3.Store(array, z3.BitVecVal(base - 8 + index, 64), z3.BitVecVal(byte, 8))
    imm = int(insn["imm"][0])
    if insn["code"][0] == isa.LD_IMM64:
        imm = int(insn["imm"][1]) << 32 | imm & 0xFFFFFFFF
    fields = Fields(
        int(insn["code"][0]), int(isa.dst(insn)[0]), int(isa.src(insn)[0]), int(insn["off"][0]), imm
    )
    start = type(state)(state.regs, array, state.taken)
    after = code.step(start, fields)
    value = z3.simplify(after.regs[2]).as_long()
    if after.memory is array:
        return value, z3.is_true(z3.simplify(after.taken)), memory
    found = [
        z3.simplify(z3.Select(after.memory, z3.BitVecVal(base - 8 + at, 64))).as_long()
        for at in range(SIZE)
    ]
    return value, z3.is_true(z3.simplify(after.taken)), bytes(found)
