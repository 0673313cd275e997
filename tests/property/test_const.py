"""Folding constants keeps what programs do, on random programs that read their settings."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bpfpatch.asm import assemble
from bpfpatch.btf import Array, BtfBuilder, DataSec, Int, SecVar, Var, VarLinkage
from bpfpatch.elf import ElfObject
from bpfpatch.elf.build import DataPart, NewObjectParts, NewVariable, build_object
from bpfpatch.passes import Pipeline
from bpfpatch.runs import Input, open_runner

N_PROGRAMS = 24
SIZE = 32
MARK = 0x5EED0000
"""In an ld_imm64: this is an address in the settings, that many bytes from their start."""

REGISTERS = [0, 2, 3, 4, 6, 7, 8]
SIGNS = ["==", "!=", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=", "&"]
OPS = ["+=", "-=", "*=", "/=", "%=", "|=", "&=", "^=", "="]


def statement(rng: random.Random, label: int) -> list[str]:
    """A few lines that go on to the next ones."""
    dst, src, kind = rng.choice(REGISTERS), rng.choice(REGISTERS), rng.choice("rw")
    choice = rng.randrange(8)
    if choice < 3:
        size = rng.choice([1, 2, 4, 8])
        byte_off = rng.randrange(SIZE - size + 1)
        first = rng.randrange(byte_off + 1)
        sign = rng.choice("us") if size < 8 else "u"
        return [
            f"r{dst} = {MARK + first} ll",
            f"r{dst} += {byte_off - first - 4}",
            f"r{dst} = *({sign}{8 * size} *)(r{dst} + 4)",
        ]
    if choice == 3:
        right = f"{kind}{src}" if rng.random() < 0.5 else str(rng.choice([0, 1, -1, 255]))
        return [
            f"if {kind}{dst} {rng.choice(SIGNS)} {right} goto L{label}",
            *statement(rng, label + 1000),
            f"L{label}:",
        ]
    if choice == 4:
        again = ["r2 = 5", "r3 = 6", "r4 = 7"]
        return [f"r1 = {kind}{dst}" if kind == "r" else f"w1 = w{dst}", f"r2 = {rng.randrange(3)}",
                "call helper", *again]  # fmt: skip
    if choice == 5:
        return [f"{kind}{dst} {rng.choice(['<<=', '>>=', 's>>='])} {rng.randrange(32)}"]
    return [f"{kind}{dst} {rng.choice(OPS)} {kind}{src}"]


def random_object(rng: random.Random) -> ElfObject:
    """A program that mixes its settings with 16 bytes of input, and its static function."""
    lines = ["main:", "r9 = r1", "r6 = *(u64 *)(r9 + 0)", "r7 = *(u64 *)(r9 + 8)"]
    lines += ["r0 = 1", "r2 = 2", "r3 = 3", "r4 = 4", "r8 = 8"]
    for at in range(rng.randint(3, 14)):
        lines += statement(rng, at)
    lines += [f"r0 ^= r{one}" for one in REGISTERS[1:]] + ["exit", "helper:", "r0 = r1"]
    lines += ["if r2 == 1 goto other", "r0 += r2", f"r5 = {MARK + 3} ll", "r5 = *(u8 *)(r5 + 0)",
              "r0 *= r5", "exit", "other:", "w0 = w2", "exit"]  # fmt: skip
    program = assemble("\n".join(lines))
    insns = program.insns.copy()
    high = insns["imm"].astype(np.int64) >> 16 == MARK >> 16
    slots = np.flatnonzero((insns["code"] == 0x18) & high)
    insns["imm"][slots] -= MARK
    types = BtfBuilder()
    byte, word = types.add(Int("unsigned char", 1, 8)), types.add(Int("int", 4, 32))
    var = types.add(Var("settings", types.add(Array(byte, word, SIZE)), VarLinkage.GLOBAL))
    types.add(DataSec(".rodata", SIZE, (SecVar(var, 0, SIZE),)))
    types.string("xdp"), types.string(".text")
    held = bytes(rng.choice([0, 0, 1, 255, rng.randrange(256)]) for _ in range(SIZE))
    return build_object(
        NewObjectParts(
            type(program)(insns, program.subprogs),
            "xdp",
            "GPL",
            types.build(),
            (),
            (DataPart(".rodata", held, (NewVariable("settings", 0, SIZE),)),),
            dict.fromkeys(slots.tolist(), ".rodata"),
            (True, False)[: len(program.subprogs)],
        )
    )


def results(obj: ElfObject, inputs: list[bytes]) -> list[int | None]:
    """R0 for each input."""
    with open_runner(obj.link("main"), "interp", obj=obj, prog_type=None) as runner:
        outcomes = [runner.run(Input(mem=one), with_maps=False) for one in inputs]
    assert all(outcome.error is None for outcome in outcomes)
    return [outcome.r0 for outcome in outcomes]


@pytest.mark.parametrize("pipeline", ["const{all=true}", "const{all=true},dce,nops"])
def test_meaning_stays(pipeline: str) -> None:
    """R0 is the same before and after, for any input; a second run finds nothing."""
    gone = 0
    for seed in range(N_PROGRAMS):
        rng = random.Random(seed)
        obj = random_object(rng)
        folded, _ = Pipeline.parse(pipeline).run_object(obj)
        inputs = [rng.randbytes(16), bytes(16), b"\xff" * 16]
        assert results(folded, inputs) == results(obj, inputs), seed
        again, _ = Pipeline.parse(pipeline).run_object(folded)
        assert again.code.to_bytes() == folded.code.to_bytes(), seed
        gone += len(obj.code) - len(folded.code)
    assert gone > 5 * N_PROGRAMS  # there is something to fold


def test_only_settled_bytes_are_folded() -> None:
    """With some elements given, what the others hold when the program runs still counts."""
    for seed in range(N_PROGRAMS // 4):
        rng = random.Random(seed)
        obj = random_object(rng)
        names = [f"settings[{at}]" for at in rng.sample(range(SIZE), SIZE // 2)]
        (old,) = obj.variables
        given = {name: old.value[int(name[9:-1])] for name in names}
        folded, _ = Pipeline.parse("const,dce").run_object(obj.with_values(given))
        others = {
            f"settings[{at}]": rng.randrange(256)
            for at in range(SIZE)
            if f"settings[{at}]" not in given
        }
        inputs = [rng.randbytes(16)]
        assert results(folded.with_values(others), inputs) == results(
            obj.with_values(others), inputs
        ), seed
