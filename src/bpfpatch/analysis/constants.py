"""Constants that a block's code shows, and the branches that they decide."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask

from .alu import ALU, ALU64, CLASS_MASK, JMP, JMP32, OP_MASK, SRC_X, U64, compute, holds
from .blocks import Blocks

Known = dict[int, int]
"""Registers that hold a constant, each with its unsigned 64 bits."""

_MOV, _NEG, _END = 0xB0, 0x80, 0xD0
# Above the registers of `isa.writes`.
_OPAQUE: Final = 1 << 14
_SECOND: Final = 1 << 15


class Constants:
    """Runs blocks on what is known of the registers.

    Constants are followed through moves, arithmetic and 64-bit loads of a
    number; memory is never looked at. Functions in which no branch compares
    anything are not looked at one instruction at a time.

    Args:
        view: the code.
        blocks: its blocks.
        opaque: (n,) slots whose immediate nobody knows before loading: a
            relocation or a CO-RE record fills it in.
    """

    __slots__ = ("_behind", "_flags", "_insns", "_needed", "_start")

    def __init__(self, view: CodeView, blocks: Blocks, opaque: Mask) -> None:
        insns = view.insns
        flags = isa.writes(insns)
        self._needed = _compares(view, blocks).tolist()
        flags[opaque] |= _OPAQUE
        flags[view.node < 0] |= _SECOND
        self._flags = flags
        self._insns = insns
        self._start = blocks.start.tolist()
        self._behind = np.append(blocks.start[1:], len(view)).tolist()

    def run(self, block: int, known: Known) -> tuple[Known, bool | None]:
        """Run one block.

        Args:
            block: which.
            known: what is known on entry; left as it is.

        Returns:
            What is known at its end, and whether its last instruction, if that
            is a branch, is taken: None where nobody can tell.
        """
        if not self._needed[block]:
            return {}, None
        known = known.copy()
        verdict = None
        first, behind = self._start[block], self._behind[block]
        rows = self._insns[first : behind + 1].tolist()  # one more: an ld_imm64's upper half
        flags = self._flags[first:behind].tolist()
        for at, flag in enumerate(flags):
            if flag & _SECOND:
                continue
            code, regs, slot_off, imm = rows[at]
            dst, src = regs & 0xF, regs >> 4
            kind = code & CLASS_MASK
            operand = known.get(src) if code & SRC_X else imm & U64
            if kind in (ALU, ALU64):
                value = None
                if not flag & _OPAQUE:
                    value = _result(known.get(dst), operand, code, slot_off, imm)
                _set(known, dst, value)
            elif code == isa.LD_IMM64 and src == 0 and not flag & _OPAQUE:
                known[dst] = (rows[at + 1][3] << 32 | imm & 0xFFFFFFFF) & U64
            elif flag & ~_OPAQUE:
                for register in [r for r in known if flag >> r & 1]:
                    del known[register]
            elif kind in (JMP, JMP32) and dst in known and operand is not None:
                verdict = None if flag & _OPAQUE else holds(code, known[dst], operand)
        return known, verdict


def _result(
    left: int | None, operand: int | None, code: int, slot_off: int, imm: int
) -> int | None:
    """What an arithmetic instruction computes, or None where something of it is unknown."""
    operation = code & OP_MASK
    if operation == _MOV:
        left = 0
    elif operation in (_NEG, _END):
        operand = 0
    if left is None or operand is None:
        return None
    return compute(code, slot_off, left, operand, imm)


def _set(known: Known, register: int, value: int | None) -> None:
    if value is None:
        known.pop(register, None)
    else:
        known[register] = value


def _compares(view: CodeView, blocks: Blocks) -> Mask:
    """(b,) blocks of functions in which a branch compares at all."""
    last = view.insns[blocks.last]
    is_branch = isa.is_cond_jump(last) & ~isa.is_may_goto(last)
    return np.isin(blocks.subprog, blocks.subprog[is_branch])
