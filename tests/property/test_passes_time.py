"""Passes take linear time on what is made to make them slow."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.passes import Pipeline
from bpfpatch.program import Program

SMALL, FACTOR = 6_000, 8
# Quadratic work would grow by 64. What is allowed lies well between, for a busy machine's sake.
MOST = 3 * FACTOR

Row = tuple[int, int, int, int]
MOV, ADD, ADD_X, JA, JEQ, JNE, JLT = 0xB7, 0x07, 0x0F, 0x05, 0x15, 0x55, 0xA5
R1, R2, R1_R2 = 1, 2, 0x21


def repeated(*unit: Row, last: int = 0) -> Callable[[int], Program]:
    """A few instructions over and over; the ``last`` units' jumps would leave: they are moves."""

    def make(n_slots: int) -> Program:
        body = np.tile(np.array(list(unit), isa.INSN), n_slots // len(unit))
        if last:
            body[-last:] = (MOV, 0, 0, 0)
        return Program(np.concatenate([body, isa.mov(0, 0), isa.exit_()]))

    return make


def nested(n_slots: int) -> Program:
    """Gotos that all go as far to the end as their field holds."""
    body = np.zeros(n_slots, isa.INSN)
    body["code"] = JA
    body["off"] = np.minimum(np.arange(n_slots)[::-1], 32_767)
    return Program(np.concatenate([body, isa.mov(0, 0), isa.exit_()]))


def called(n_slots: int) -> Program:
    """A chain of functions, each called by the one in front of it, the first by dead code."""
    n_functions = n_slots // 2
    body = np.zeros(2 * n_functions, isa.INSN)
    body["code"][::2], body["regs"][::2], body["imm"][::2] = isa.CALL, 0x10, 1
    body["code"][1::2] = isa.EXIT
    body[-2:] = np.concatenate([isa.mov(0, 0), isa.exit_()])
    return Program(np.concatenate([isa.ja(1), isa.call_subprog(1), isa.exit_(), body]))


SHAPES = {
    "straight": repeated((ADD, R1, 0, 1), (ADD, R2, 0, 1)),
    "branchy": repeated((ADD, R1, 0, 1), (JEQ, R2, 5, 3), last=8),
    "nops": repeated((JA, 0, 0, 0), (JA, 0, 0, 0)),
    "overlapping gotos": repeated((JA, 0, 1, 0), (JA, 0, 1, 0), last=2),
    "nested gotos": nested,
    "one branch unlocks the next": repeated(
        (MOV, R1, 0, 1), (JEQ, R1, 2, 0), (MOV, R1, 0, 1), last=6
    ),
    "each branch undone by the next": repeated((MOV, R2, 0, 1), (JEQ, R2, 1, 0), last=4),
    "loops": repeated((MOV, R1, 0, 0), (ADD, R1, 0, 1), (JLT, R1, -2, 10)),
    "what one loop forgets the next needs": repeated(
        (MOV, R1, 0, 1), (ADD_X, R1_R2, 0, 0), (JNE, R2, -3, 7), (ADD_X, 0x12, 0, 0)
    ),
    "functions in a row": called,
}


def spent(pipeline: Pipeline, program: Program) -> float:
    """Seconds of the fastest of three runs, without those that other processes took."""
    found = []
    for _ in range(3):
        began = time.process_time()
        pipeline.run(program)
        found.append(time.process_time() - began)
    return min(found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["dce", "nops"])
def test_time_is_linear(shape: str, text: str) -> None:
    """Eight times the program takes about eight times as long, not 64 times."""
    pipeline, make = Pipeline.parse(text), SHAPES[shape]
    small = spent(pipeline, make(SMALL))
    assert spent(pipeline, make(SMALL * FACTOR)) < MOST * small
