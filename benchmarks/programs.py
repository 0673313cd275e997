"""Programs of any length."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.program import Program

_MOV, _EXIT = 0xB7, 0x95


def immediates(n_insns: int) -> Program:
    """``r0 = imm``, all different, and an exit."""
    insns = np.zeros(n_insns, isa.INSN)
    insns["code"] = _MOV
    insns["imm"] = np.arange(n_insns)
    insns["code"][-1] = _EXIT
    insns["imm"][-1] = 0
    return Program(insns)


def _start() -> isa.Insns:
    """Two numbers that nobody knows, and one in a slot of the stack."""
    return np.concatenate(
        [
            isa.mov(isa.R6, isa.Reg(isa.R1)),
            isa.load("u32", isa.R7, isa.R6, 0),
            isa.load("u32", isa.R8, isa.R6, 40),
            isa.mov(isa.R0, isa.Reg(isa.R7)),
            isa.store("u64", isa.R10, -8, isa.Reg(isa.R7)),
        ]
    )


_STRAIGHT: Final = np.concatenate(
    [
        isa.alu("+=", isa.R0, isa.Reg(isa.R8)),
        isa.load("u64", isa.R3, isa.R10, -8),
        isa.alu("^=", isa.R3, isa.Reg(isa.R0), width=32),
        isa.store("u64", isa.R10, -8, isa.Reg(isa.R3)),
    ]
)

_BRANCHY: Final = np.concatenate(
    [
        isa.jump(">", isa.R7, isa.Reg(isa.R8), 2),
        isa.mov(isa.R3, isa.Reg(isa.R7)),
        isa.ja(1),
        isa.mov(isa.R3, isa.Reg(isa.R8)),
    ]
)


def _repeated(site: isa.Insns, n_insns: int) -> Program:
    start = _start()
    count = (n_insns - len(start) - 1) // len(site)
    return Program(np.concatenate([start, np.tile(site, count), isa.exit_()]))


def straight(n_insns: int) -> Program:
    """Arithmetic, loads and stores without a jump; the verifier takes it, as a classifier."""
    return _repeated(_STRAIGHT, n_insns)


def branchy(n_insns: int) -> Program:
    """One branch in four instructions; the verifier takes it, as a classifier."""
    return _repeated(_BRANCHY, n_insns)


SHAPES: Final = {"straight-line": straight, "branchy": branchy}
