"""Peephole and its prover against the kernel."""

from __future__ import annotations

import random

import pytest

from bpfpatch import isa, kernel
from bpfpatch.asm import assemble
from bpfpatch.isa import OPCODES, Kind, Opcode
from bpfpatch.passes import Pipeline, Target
from bpfpatch.passes.peephole import builtin_rules
from bpfpatch.program import Program
from support.generators.programs.rules import PACKET, program_for
from support.machine.tools import need_bpf
from support.models.termsteps import NUMBERS, SIZE, has_meaning, instance, terms

pytestmark = pytest.mark.kernel

NAMES = list(dict.fromkeys(rule.name for rule in builtin_rules()))
N_ROUNDS = 2
_SHIFTS, _DIVISIONS = (0x60, 0x70, 0xC0), (0x30, 0x90)


@pytest.fixture(autouse=True)
def _need() -> None:
    need_bpf()


def answer(program: Program, packet: bytes) -> tuple[int, bytes]:
    """What the kernel makes of a packet by an XDP program."""
    with kernel.load(program, prog_type="xdp") as loaded:
        done = loaded.test_run(packet)
    return done.retval, done.data


@pytest.mark.parametrize("name", NAMES)
def test_kernel_takes_and_runs_what_comes_out(name: str) -> None:
    """What a rule leaves loads where the original did, and gives the same packet and verdict."""
    rules = [rule for rule in builtin_rules() if rule.name == name]
    n_run = 0
    for seed in range(N_ROUNDS):
        text = program_for(random.Random(seed).choice(rules), 100 + seed)
        if text is None:
            continue
        program = assemble(text)
        packet = random.Random(seed).randbytes(PACKET)
        try:
            wanted = answer(program, packet)
        except kernel.VerifierError:
            continue  # arithmetic on an address, say
        for safe in ("true", "false"):
            pipeline = Pipeline.parse(f"peephole{{safe={safe}}}")
            result = pipeline.run(program, Target.loadable("v4"))
            assert answer(result.program, packet) == wanted, text
        n_run += 1
    assert n_run


def steps(insns: list[isa.Insns]) -> str:
    """A program that runs instructions, each on R2, R3 and 16 bytes of the packet, which it fills.

    What it leaves of R2, and whether it jumped, stands in front of these bytes.
    """
    size = 16 + SIZE
    lines = ["r9 = *(u32 *)(r1 + 0)", "r3 = *(u32 *)(r1 + 4)", "r4 = r9"]
    lines += [f"r4 += {size * len(insns)}", "if r4 > r3 goto out"]
    for at, insn in enumerate(insns):
        lines += ["r4 = r9", f"r4 += {size * at + 24}"]
        lines += [f"r2 = *(u64 *)(r9 + {size * at})", f"r3 = *(u64 *)(r9 + {size * at + 8})"]
        lines += [f".8byte {int(word):#x}" for word in isa.words(insn)]
        lines += ["r6 = 0", *(["goto pc+1", "r6 = 1"] if isa.is_cond_jump(insn)[0] else [])]
        lines += [f"*(u64 *)(r9 + {size * at}) = r2", f"*(u64 *)(r9 + {size * at + 8}) = r6"]
    return "\n".join([*lines, "out:", "r0 = 2", "exit"])


def accepted(opcode: Opcode, insn: isa.Insns) -> bool:
    """Whether the verifier takes an immediate: no shift by more than there is, no division by 0."""
    if opcode.kind is not Kind.ALU or opcode.code & 8:
        return True
    imm = int(insn["imm"][0])
    if opcode.code & 0xF0 in _SHIFTS:
        return 0 <= imm < (64 if opcode.code & 7 == 7 else 32)
    return opcode.code & 0xF0 not in _DIVISIONS or imm != 0


@pytest.mark.parametrize(
    "opcode", [one for one in OPCODES if has_meaning(one)], ids=lambda one: one.name
)
def test_row_means_what_the_kernel_does(opcode: Opcode) -> None:
    """What the prover says of an instruction is what the kernel's JIT makes it do."""
    z3 = pytest.importorskip("z3")
    rng = random.Random(opcode.name)
    made = [instance(opcode, rng) for _ in range(12)]
    insns = [insn for insn in made if accepted(opcode, insn)][:4]
    given = [
        {number: rng.choice((rng.choice(NUMBERS), rng.getrandbits(64))) for number in (2, 3)}
        for _ in insns
    ]
    memory = [rng.randbytes(SIZE) for _ in insns]
    packet = b"".join(
        b"".join(value.to_bytes(8, "little") for value in regs.values()) + some
        for regs, some in zip(given, memory, strict=True)
    )
    _, after = answer(assemble(steps(insns)), packet)
    for at, (insn, regs, some) in enumerate(zip(insns, given, memory, strict=True)):
        here = after[at * (16 + SIZE) :][: 16 + SIZE]
        value, jumped = (int.from_bytes(here[i : i + 8], "little") for i in (0, 8))
        assert (value, bool(jumped), here[16:]) == terms(z3, insn, regs, some), insn
    assert insns
