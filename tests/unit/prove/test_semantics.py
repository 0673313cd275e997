"""What the prover says of instructions is what the interpreter does."""

from __future__ import annotations

import random

import pytest

from bpfpatch import isa
from bpfpatch.asm import assemble
from bpfpatch.errors import BpfPatchError, UnsupportedError
from bpfpatch.interp import Machine
from bpfpatch.isa import OPCODES, Opcode
from bpfpatch.prove import Fields, SymbolicCode
from support.models.termsteps import NUMBERS, SIZE, has_meaning, instance, terms

z3 = pytest.importorskip("z3")

N_INSNS = 3
N_RUNS = 4


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
            assert terms(z3, insn, regs, memory) == run(machine, regs, memory), (insn, regs)


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
