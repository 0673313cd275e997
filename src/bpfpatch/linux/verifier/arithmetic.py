"""Arithmetic on values, and the links between a number and its copies.

Source: linux v6.18, kernel/bpf/verifier.c, check_alu_op(), adjust_reg_min_max_vals(),
assign_scalar_id_before_mov().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfpatch.facts.columns import MemType
from bpfpatch.isa.semantics import ALU64, AND, CLASS_MASK, END, MOV, OP_MASK, OR, SRC_X, U32, U64

from . import scalarops, scalars
from .refine import link_of, pointer_alu
from .scalars import LOADED, SCALAR, UNKNOWN, Number, Scalar, Value
from .state import FRAME_POINTER, VerifierState, frame_pointer
from .values import as_scalar, is_pointer, lost, pointer

if TYPE_CHECKING:
    from .absint import Interpreter

_MOST_FORKS: Final = 64
_CAST_TO_KERNEL: Final = 1


class Arithmetic:
    """What ALU instructions do to a state.

    Args:
        owner: the analysis that they are part of.
    """

    def __init__(self, owner: Interpreter) -> None:
        self._owner = owner
        self._code = owner.code
        self._forks: dict[int, int] = {}

    def run(self, slot: int, state: VerifierState) -> None:
        """An arithmetic instruction, move or byte swap."""
        regs, fields = state.regs, self._code
        code, dst, src = fields.opcode[slot], fields.dst[slot], fields.src[slot]
        operation = code & OP_MASK
        if not code & SRC_X or operation == END:
            operand: Value = fields.imm64[slot]
        else:
            operand = regs[src] if src != FRAME_POINTER else frame_pointer(state)
        if operation == MOV:
            regs[dst] = self._move(slot, operand, src, state, is_64=code & CLASS_MASK == ALU64)
            return
        left = regs[dst]
        if isinstance(left, int) and isinstance(operand, int):
            regs[dst] = scalarops.arithmetic(code, left, operand)
            return
        if is_pointer(left) or is_pointer(operand) or left is None or operand is None:
            regs[dst] = result = pointer_alu(code, left, operand)
            if result is None:
                state.lost |= lost(left) | lost(operand)
            return
        if isinstance(operand, int) and isinstance(left, tuple) and operation in (AND, OR):
            left = self._fork(slot, dst, left, state)
        result = scalarops.arithmetic(code, scalars.without_id(left), scalars.without_id(operand))
        if isinstance(left, tuple) and left[1] and not left[2] and isinstance(result, tuple):
            link = link_of(code, left, operand)
            if link and not (code & SRC_X and dst == src):
                result = (SCALAR, left[1], link, *result[3:])
        regs[dst] = result

    def _fork(self, slot: int, dst: int, value: Scalar, state: VerifierState) -> Number:
        """A mask of all ones or none, which is combined with a constant, goes two ways.

        Source: linux v6.18.44, kernel/bpf/verifier.c, maybe_fork_scalars().
        """
        if value[7:9] == (-1, 0):
            ones: Number = U64
            zero: Number = 0
        elif value[11:13] == (-1, 0):
            known = scalars.parts(value)
            ones, zero = (scalars.with_low_half(known, low) for low in (U32, 0))
        else:
            return value
        block = self._code.block_of[slot]
        if self._forks.get(block, 0) >= _MOST_FORKS:
            return value
        self._forks[block] = self._forks.get(block, 0) + 1
        other = state.copy()
        other.regs[dst] = zero
        self._owner.run_block(block, other, slot)
        return ones

    def _move(  # noqa: PLR0911 - one way out for each kind
        self, slot: int, operand: Value, src: int, state: VerifierState, *, is_64: bool
    ) -> Value:
        bits = self._code.off[slot]
        if isinstance(operand, int):
            if bits in (8, 16, 32):
                return scalars.sign_extended(operand, bits // 8, is_64)
            if bits:
                return (
                    pointer(MemType.ARENA) if self._code.imm[slot] == _CAST_TO_KERNEL else UNKNOWN
                )
            return operand if is_64 else operand & U32
        if bits == 0 and is_64:
            return self.linked(operand, src, state)
        if bits in (8, 16, 32):
            return scalars.sign_extended(as_scalar(operand), bits // 8, is_64)
        if bits:
            return pointer(MemType.ARENA) if self._code.imm[slot] == _CAST_TO_KERNEL else UNKNOWN
        if operand is None or operand[0] != SCALAR:
            return LOADED[4]
        if scalars.fits_u32(operand):
            return self.linked(operand, src, state)
        return scalars.low_half(scalars.without_id(operand))

    def linked(self, value: Value, register: int, state: VerifierState) -> Value:
        """A copy of a register's value; a number and its copies are one."""
        if not isinstance(value, tuple) or value[0] != SCALAR or (value[1] and not value[2]):
            return value
        value = (SCALAR, self._owner.fresh(), 0, *value[3:])
        state.regs[register] = value
        return value
