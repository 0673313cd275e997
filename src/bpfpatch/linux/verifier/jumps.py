"""Conditional jumps: which ways they can go, and what each of them tells.

Source: linux v6.18, kernel/bpf/verifier.c, check_cond_jmp_op(), is_branch_taken().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfpatch.facts.columns import MemType
from bpfpatch.isa.semantics import CLASS_MASK, JMP, OP_MASK, SRC_X

from . import branches, scalars
from .branches import JGE, JGT, JLE, JLT
from .refine import decide_null, set_number, share_nullness
from .scalars import UNKNOWN, Pointer, Value
from .state import FRAME_POINTER, VerifierState, frame_pointer
from .values import PACKET_END, is_never_null, is_pointer

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


# Comparisons of packet pointers with the packet's end.
#
# A pointer that was found to be at the end, or beyond it, says so in its ``trust``
# field, which has no other use for packets; later comparisons of it are decided.
#
# Source: linux v6.18, kernel/bpf/verifier.c, try_match_pkt_pointers(), mark_pkt_end(),
# is_pkt_ptr_branch_taken().

_AT, _BEYOND = 4, 5
_FLIPPED: Final = {JGT: JLT, JLT: JGT, JGE: JLE, JLE: JGE}
# Of a comparison of a pointer with the end: what it is where the jump is not taken, and where
# it is; 0 for within the packet.
_MARKS: Final = {JGT: (0, _BEYOND), JLE: (_BEYOND, 0), JLT: (_AT, 0), JGE: (0, _AT)}


def is_packet_test(left: Pointer, right: Pointer) -> bool:
    """Whether one side is a packet pointer, and the other the packet's end."""
    return {left[0], right[0]} == {int(MemType.PACKET), PACKET_END}


def packet_verdict(operation: int, left: Pointer, right: Pointer) -> bool | None:
    """Whether the jump is taken, or None where that is not known."""
    if left[0] == PACKET_END:
        operation, left = _FLIPPED.get(operation, operation), right
    mark = left[7]
    if mark == _BEYOND and operation in (JLE, JGT):
        return operation == JGT
    if mark and operation in (JLT, JGE):
        return operation == JGE
    return None


def packet_marks(operation: int, left: Pointer, right: Pointer) -> tuple[Pointer, Pointer]:
    """The packet pointer where the jump is not taken, and where it is."""
    if left[0] == PACKET_END:
        operation, left = _FLIPPED.get(operation, operation), right
    falls, jumps = _MARKS.get(operation, (0, 0))
    return (*left[:7], falls or left[7]), (*left[:7], jumps or left[7])
