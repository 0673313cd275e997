"""What the prover says of instructions is what the interpreter does."""

from __future__ import annotations

import random

import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import BpfPatchError, UnsupportedError
from bpfpatch.interp import Machine
from bpfpatch.isa import OPCODES, Kind, Opcode
from bpfpatch.prove import Fields, SymbolicCode

z3 = pytest.importorskip("z3")

N_INSNS = 3
N_RUNS = 4
SIZE = 16
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


def machine_for(insn: isa.Insns) -> Machine:
    """A program that runs an instruction on R2, R3 and 16 bytes that it is given, and gives back.

    R6 says whether it jumped.
    """
    lines = ["r9 = r1", "r4 = r10", "r4 += -8"]
    for at in (0, 8):
        lines += [f"r0 = *(u64 *)(r9 + {16 + at})", f"*(u64 *)(r10 - {16 - at}) = r0"]
    lines += ["r2 = *(u64 *)(r9 + 0)", "r3 = *(u64 *)(r9 + 8)"]
    lines += [f".8byte {int(word):#x}" for word in isa.words(insn)]
    lines += ["r6 = 0", "goto pc+1", "r6 = 1"]
    for at in (0, 8):
        lines += [f"r0 = *(u64 *)(r10 - {16 - at})", f"*(u64 *)(r9 + {16 + at}) = r0"]
    lines += ["*(u64 *)(r9 + 0) = r2", "*(u64 *)(r9 + 8) = r6", "r0 = 0", "exit"]
    return Machine(assemble("\n".join(lines)))


def run(machine: Machine, regs: dict[int, int], memory: bytes) -> tuple[int, bool, bytes]:
    """R2, whether it jumped, and memory after one instruction in the interpreter."""
    given = b"".join(value.to_bytes(8, "little") for value in regs.values()) + memory
    out = machine.run(mem=given).mem
    assert out is not None
    value, taken = (int.from_bytes(out[at : at + 8], "little") for at in (0, 8))
    return value, bool(taken), bytes(out[16:])


def terms(insn: isa.Insns, regs: dict[int, int], memory: bytes) -> tuple[int, bool, bytes]:
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


@pytest.mark.parametrize(
    "opcode", [one for one in OPCODES if has_meaning(one)], ids=lambda o: o.name
)
def test_row_means_what_the_interpreter_does(opcode: Opcode) -> None:
    """Register, jump and memory are those of a run, for every row that the semantics claims."""
    rng = random.Random(opcode.name)
    for _ in range(N_INSNS):
        insn = instance(opcode, rng)
        machine = machine_for(insn)
        for _ in range(N_RUNS):
            two, three = (rng.choice((rng.choice(NUMBERS), rng.getrandbits(64))) for _ in range(2))
            regs, memory = {2: two, 3: rng.choice((two, three))}, rng.randbytes(SIZE)
            assert terms(insn, regs, memory) == run(machine, regs, memory), (insn, regs)


@pytest.mark.parametrize(
    "opcode", [one for one in OPCODES if not has_meaning(one)], ids=lambda o: o.name
)
def test_other_rows_are_refused(opcode: Opcode) -> None:
    """What the semantics does not know is an error, and never taken for something else."""
    code = SymbolicCode(z3)
    fields = Fields(opcode.code, 2, opcode.src or 0, opcode.off or 0, opcode.imm or 0)
    with pytest.raises((UnsupportedError, BpfPatchError)):
        code.step(code.start(tuple(range(12))), fields)


def test_big_machines_have_their_bytes_the_other_way() -> None:
    """A load on a big-endian machine has the first byte on top; a store puts it there."""
    code = SymbolicCode(z3, little=False)
    state = code.start()
    after = code.step(state, Fields(0x6A, 4, 0, 0, 0x1234))
    first = z3.simplify(z3.Select(after.memory, state.regs[4]))
    assert first.as_long() == 0x12
    loaded = code.step(after, Fields(0x69, 2, 4, 0, 0))
    assert z3.simplify(loaded.regs[2]).as_long() == 0x1234
