"""Constants that a block's code shows, and the branches that they decide."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa.semantics import (
    ALU,
    ALU64,
    CLASS_MASK,
    JMP,
    JMP32,
    OP_MASK,
    SRC_X,
    U64,
    compute,
    holds,
)
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask

from .blocks import Blocks

Known = dict[int, int]
"""Registers that hold a constant, each with its unsigned 64 bits."""

_MOV, _NEG, _END = 0xB0, 0x80, 0xD0
# Above the registers of `isa.writes`.
_OPAQUE: Final = 1 << 14
_SECOND: Final = 1 << 15

_NUMBER: Final = int(isa.Pseudo.NUMBER)


class Constants:
    """Runs blocks on what is known of the registers.

    Constants are followed through moves, arithmetic and 64-bit loads of a
    number; memory is never looked at. Functions in which no branch compares
    anything are not looked at one instruction at a time.

    Args:
        view: the code.
        blocks: its blocks.
        opaque: (n,) slots whose immediate is not known before loading: a
            relocation or a CO-RE record fills it in.
    """

    __slots__ = ("_behind", "_columns", "_flags", "_is_needed", "_makes", "_start")

    def __init__(self, view: CodeView, blocks: Blocks, opaque: Mask) -> None:
        flags = isa.writes(view.insns)
        flags[opaque] |= _OPAQUE
        flags[view.node < 0] |= _SECOND
        is_needed = _compares(view, blocks)
        insns = view.insns if is_needed.any() else view.insns[:0]
        self._columns: tuple[list[int], ...] = (
            insns["code"].tolist(),
            isa.dst(insns).tolist(),
            isa.src(insns).tolist(),
            insns["off"].tolist(),
            insns["imm"].tolist(),
        )
        self._flags: list[int] = flags[: len(insns)].tolist()
        self._is_needed: list[bool] = is_needed.tolist()
        self._makes: list[bool] = _makes_constants(view, blocks).tolist() if len(insns) else []
        self._start: list[int] = blocks.start.tolist()
        self._behind: list[int] = np.append(blocks.start[1:], len(view)).tolist()

    def run(self, block: int, known: Known) -> tuple[Known, bool | None]:
        """Run one block.

        Args:
            block: which.
            known: what is known on entry; left as it is.

        Returns:
            What is known at its end, and whether its last instruction, if that
            is a branch, is taken: None where that is not known.
        """
        if not self._is_needed[block] or not (known or self._makes[block]):
            return {}, None
        known = known.copy()
        verdict = None
        codes, dsts, srcs, offs, imms = self._columns
        for slot in range(self._start[block], self._behind[block]):
            code, dst, flag = codes[slot], dsts[slot], self._flags[slot]
            if flag & _SECOND:
                continue
            src, imm = srcs[slot], imms[slot]
            kind = code & CLASS_MASK
            operand = known.get(src) if code & SRC_X else imm & U64
            if kind in (ALU, ALU64):
                value = None
                if not flag & _OPAQUE:
                    value = _result(known.get(dst), operand, code, offs[slot], imm)
                _set(known, dst, value)
            elif code == isa.LD_IMM64 and src == _NUMBER and not flag & _OPAQUE:
                known[dst] = (imms[slot + 1] << 32 | imm & 0xFFFFFFFF) & U64
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


def _makes_constants(view: CodeView, blocks: Blocks) -> Mask:
    """(b,) blocks behind which something may be known though nothing was before.

    Anything but a load or move of a constant needs a register that is known already.
    """
    code = view.insns["code"]
    kind = code & CLASS_MASK
    is_move = ((kind == ALU) | (kind == ALU64)) & (code & OP_MASK == _MOV) & (code & SRC_X == 0)
    return np.logical_or.reduceat(is_move | (code == isa.LD_IMM64), blocks.start)


def _compares(view: CodeView, blocks: Blocks) -> Mask:
    """(b,) blocks of functions in which a branch compares at all."""
    # Of the whole code: between instructions of other blocks an ld_imm64 would have no second half.
    is_branch = isa.is_cond_jump(view.insns) & ~isa.is_may_goto(view.insns)
    return np.isin(blocks.subprog, blocks.subprog[is_branch[blocks.last]])
