"""A register's constant, as the code right in front of an instruction shows it."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa
from bpfpatch.isa import Reg
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Insns

_MOV_IMM = (0xB4, 0xB7)  # w = imm, r = imm


def constant_in(view: CodeView, slot: int, reg: Reg) -> int | None:
    """What a register holds when an instruction runs, where that is one constant.

    Looks back over straight-line code; a jump into it, or anything but a move
    of a constant into the register, ends the search.

    Returns:
        The constant, or None.
    """
    first = int(view.starts[int(view.subprog_of(np.array([slot], np.int32))[0])])
    near = view.insns[first : slot + 1]
    is_target = np.zeros(len(near), bool)
    targets = view.ref_target - first
    is_target[targets[(targets >= 0) & (targets < len(near))]] = True
    writes = isa.writes(near) >> reg & 1
    ends = ~isa.falls_through(near) & ~isa.second_slots(near)
    for at in range(len(near) - 1, 0, -1):
        if is_target[at] or ends[at - 1]:
            return None
        if writes[at - 1]:
            return _moved(near, at - 1, reg)
    return None


def _moved(insns: Insns, slot: int, reg: Reg) -> int | None:
    """The constant that an instruction puts into a register, if it does."""
    if isa.dst(insns)[slot] != reg:
        return None
    code, imm = int(insns["code"][slot]), int(insns["imm"][slot])
    if code == isa.LD_IMM64 and isa.src(insns)[slot] == isa.Pseudo.NUMBER:
        return int(insns["imm"][slot + 1]) << 32 | imm & 0xFFFFFFFF
    return imm if code in _MOV_IMM else None
