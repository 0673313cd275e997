"""Comparisons of packet pointers with the packet's end.

A pointer that was found to be at the end, or beyond it, says so in its ``trust``
field, which has no other use for packets; later comparisons of it are decided.

Source: linux v6.18, kernel/bpf/verifier.c, try_match_pkt_pointers(), mark_pkt_end(),
is_pkt_ptr_branch_taken().
"""

from __future__ import annotations

from typing import Final

from bpfpatch.facts.columns import MemType

from .branches import JGE, JGT, JLE, JLT
from .scalars import Pointer
from .values import PACKET_END

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
