"""Conditional jumps: which ways they can go, and what each of them tells.

Source: linux v6.18, kernel/bpf/verifier.c, check_cond_jmp_op(), is_branch_taken().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfpatch.facts.columns import MemType
from bpfpatch.isa.semantics import CLASS_MASK, JMP, OP_MASK, SRC_X

from . import branches, scalars
from .packets import is_packet_test, packet_marks, packet_verdict
from .refine import decide_null, set_number, share_nullness
from .scalars import UNKNOWN, Pointer, Value
from .state import FRAME_POINTER, VerifierState, frame_pointer
from .values import is_never_null, is_pointer

if TYPE_CHECKING:
    from .absint import Interpreter

_MAY_GOTO: Final = 0xE0
_PACKET: Final = int(MemType.PACKET)


class Jumps:
    """What conditional jumps do with a state.

    Args:
        owner: the analysis that they are part of.
    """

    def __init__(self, owner: Interpreter) -> None:
        self._owner = owner
        self._code = owner.code

    def branch(self, slot: int, state: VerifierState) -> None:
        """A conditional jump: go on to where it may lead."""
        code, target = self._code.opcode[slot], self._code.target[slot]
        regs = state.regs
        dst, src = self._code.dst[slot], self._code.src[slot]
        left = regs[dst] if dst != FRAME_POINTER else frame_pointer(state)
        is_imm = not code & SRC_X
        right: Value = (
            self._code.imm64[slot]
            if is_imm
            else (regs[src] if src != FRAME_POINTER else frame_pointer(state))
        )
        if code & OP_MASK == _MAY_GOTO:
            self._both(slot, target, state, state.copy())
            return
        left = UNKNOWN if left is None else left
        right = UNKNOWN if right is None else right
        if is_pointer(left) or is_pointer(right):
            self._pointer_branch(slot, code, target, state, left, right)
            return
        a, b = scalars.without_id(left), scalars.without_id(right)
        verdict = branches.decided(code, a, b)
        if verdict is not None:
            self._owner.push(target if verdict else slot + 1, state)
            return
        other = state.copy()
        for one, is_taken in ((state, False), (other, True)):
            new_a, new_b = branches.refined(code, a, b, is_taken)
            set_number(one, dst, left, new_a)
            if not is_imm and dst != src:
                set_number(one, src, right, new_b)
        self._both(slot, target, state, other)

    def _both(self, slot: int, target: int, falls: VerifierState, jumps: VerifierState) -> None:
        self._owner.push(target, jumps)
        self._owner.push(slot + 1, falls)

    def _pointer_branch(
        self, slot: int, code: int, target: int, state: VerifierState, left: Value, right: Value
    ) -> None:
        operation = code & OP_MASK
        is_equality = code & CLASS_MASK == JMP and operation in (branches.JEQ, branches.JNE)
        if is_pointer(left) and is_pointer(right):
            if code & CLASS_MASK == JMP and is_packet_test(left, right):
                self._packet_branch(slot, operation, target, state, left, right)
                return
            other = state.copy()
            if is_equality:
                share_nullness(other if operation == branches.JEQ else state, left, right)
            self._both(slot, target, state, other)
            return
        at, against = (left, right) if is_pointer(left) else (right, left)
        if not is_equality or not is_pointer(at) or against != 0:
            self._both(slot, target, state, state.copy())
            return
        if is_never_null(at):
            self._owner.push(target if operation == branches.JNE else slot + 1, state)
            return
        other = state.copy()
        if at[5] and at is left:
            is_null, is_set = (other, state) if operation == branches.JEQ else (state, other)
            decide_null(is_null, at[4], is_null=True)
            decide_null(is_set, at[4], is_null=False)
        self._both(slot, target, state, other)

    def _packet_branch(
        self,
        slot: int,
        operation: int,
        target: int,
        state: VerifierState,
        left: Pointer,
        right: Pointer,
    ) -> None:
        verdict = packet_verdict(operation, left, right)
        if verdict is not None:
            self._owner.push(target if verdict else slot + 1, state)
            return
        register = self._code.dst[slot] if left[0] == _PACKET else self._code.src[slot]
        other = state.copy()
        falls, jumps = packet_marks(operation, left, right)
        state.regs[register], other.regs[register] = falls, jumps
        self._both(slot, target, state, other)
