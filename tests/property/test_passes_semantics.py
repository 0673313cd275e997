"""Passes keep a program's meaning, and undo each other, on random programs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bpfpatch.asm import assemble
from bpfpatch.passes import Pipeline
from bpfpatch.passes.nops import nop_slots
from bpfpatch.patch import PatchList
from bpfpatch.program import Program
from support.generators.programs import random_code, random_program
from support.models.miniinterp import result

N_PROGRAMS = 120


def run(pipeline: str, program: Program) -> Program:
    """What a pipeline makes of a program."""
    return Pipeline.parse(pipeline).run(program).program


def has_nops(program: Program) -> bool:
    """Whether nops would find anything."""
    return bool(nop_slots(PatchList(program).view()).size)


def sampled(seed: int) -> list[int]:
    """R0 to R9 at the start of a run."""
    rng = random.Random(seed)
    return [rng.choice([0, 1, 255, rng.getrandbits(64)]) for _ in range(10)]


@pytest.mark.parametrize("pipeline", ["dce,nops,sprinkle{every=3,seed=1}", "sprinkle,dce,nops,dce"])
def test_meaning_stays(pipeline: str) -> None:
    """A program returns the same R0 before and after, from whatever registers it starts."""
    gone = 0
    for seed in range(N_PROGRAMS):
        before = assemble(random_code(seed))
        after = run(pipeline, before)
        gone += len(before) - len(run("dce", before))
        for start in (seed, seed + 1):
            assert result(after, sampled(start)) == result(before, sampled(start)), seed
    assert gone > N_PROGRAMS  # the programs give dce something to do


def test_nops_undoes_sprinkle() -> None:
    """From a program without nops, sprinkle and nops come back to it byte for byte."""
    seen = 0
    for seed in range(N_PROGRAMS):
        for program in (assemble(random_code(seed)), random_program(random.Random(seed), 14)):
            if has_nops(program):
                continue
            seen += 1
            for text in ("sprinkle,nops", "sprinkle{every=2,seed=3},nops"):
                assert run(text, program).to_bytes() == program.to_bytes(), (seed, text)
    assert seen > N_PROGRAMS / 2


def test_dce_sees_through_sprinkle() -> None:
    """What dce decides, it decides with a nop in front of everything, and nothing else."""
    for seed in range(N_PROGRAMS):
        program = assemble(random_code(seed))
        lean = run("dce", program)
        assert run("sprinkle,dce", lean).to_bytes() == run("sprinkle", lean).to_bytes(), seed
        if not has_nops(lean):
            assert run("sprinkle,dce,nops", program).to_bytes() == lean.to_bytes(), seed


def test_dce_leaves_nothing_for_a_second_run() -> None:
    """dce, and nops, find nothing in what they left."""
    for seed in range(N_PROGRAMS):
        program = assemble(random_code(seed))
        for text in ("dce", "nops", "dce,nops"):
            once = run(text, program)
            assert run(text, once).to_bytes() == once.to_bytes(), (seed, text)


def test_every_row_stays_on_its_insn() -> None:
    """Whatever a pipeline does, rows on surviving instructions are still on these."""
    for seed in range(100):
        program = random_program(random.Random(seed), 14)
        done = Pipeline.parse("sprinkle{seed=1,every=2},dce,nops").run(program)
        label = done.program.tables["label"]
        kept = done.remap.own[label.rows] >= 0
        landing = done.remap.land[label.rows[kept]]
        assert (label.insn[kept] == landing).all(), seed
        assert (np.diff(done.program.subprogs.start) > 0).all(), seed
