"""What an instruction tells of values beside the one that it is about: copies and sums of it.

Source: linux v6.18.44, kernel/bpf/verifier.c, mark_ptr_or_null_regs(), sync_linked_regs(),
adjust_ptr_min_max_vals().
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpfpatch.facts.columns import MemType
from bpfpatch.isa.semantics import ADD, ALU, ALU64, CLASS_MASK, OP_MASK, SUB, U64, signed

from . import scalarops, scalars
from .scalars import LOADED, SCALAR, UNKNOWN, Number, Pointer, Scalar, Value
from .state import VerifierState
from .values import PARTIAL, UNTRUSTED, as_scalar, is_pointer, moved

# How a scalar's delta is told: the lowest two bits say in which width it was added.
_ADDED_64, _ADDED_32 = 1, 2
_WIDTH: Final = 3
_BTF_ID: Final = int(MemType.BTF_ID)


def share_nullness(state: VerifierState, left: Pointer, right: Pointer) -> None:
    """Where a pointer equals one that is not null, it is not null either."""
    if _BTF_ID in (left[0], right[0]) or left[5] == right[5]:
        return
    if UNTRUSTED in (left[7], right[7]):  # which may be null or not
        return
    decide_null(state, left[4] if left[5] else right[4], is_null=False)


def decide_null(state: VerifierState, ident: int, *, is_null: bool) -> None:
    """All copies of a pointer that was checked are null, or are not."""
    state.own_callers()

    def change(value: Pointer) -> Value:
        if not value[5]:
            return value
        return 0 if is_null else (*value[:5], False, *value[6:])

    if ident:
        state.replace(ident, 4, change)


def set_number(state: VerifierState, register: int, old: Number, new: Number) -> None:
    """A register's number is known better, and so are those linked to it."""
    if isinstance(old, int):
        return
    if not old[1]:
        state.regs[register] = new
        return
    ident, link = old[1], old[2]
    made: dict[int, Number] = {}

    def better(value: Scalar) -> Number:
        delta = value[2]
        if delta not in made:
            found = _linked_number(new, link, value)
            made[delta] = found if isinstance(found, int) else (SCALAR, ident, delta, *found[3:])
        return made[delta]

    _set_linked(state.regs, ident, better)
    if state.callers:
        state.own_callers()
        for _, regs, _ in state.callers:
            _set_linked(regs, ident, better)
    for frame in state.stacks:
        for slot, stored in frame.items():
            if type(stored) is not tuple:
                continue
            if stored[0] == SCALAR and stored[1] == ident:
                frame[slot] = better(stored)
            elif stored[0] == PARTIAL and isinstance(stored[1], tuple):
                part = stored[1]
                if part[0] == SCALAR and part[1] == ident:
                    frame[slot] = (PARTIAL, better(part), *stored[2:])


def _set_linked(regs: list[Value], ident: int, better: Callable[[Scalar], Number]) -> None:
    for register, value in enumerate(regs):
        if type(value) is tuple and value[1] == ident and value[0] == SCALAR:
            regs[register] = better(value)


def link_of(code: int, left: Number, operand: Number) -> int:
    """How a number that a constant is added to is linked to the one that it was; 0 for not.

    Source: linux v6.18.44, kernel/bpf/verifier.c, adjust_reg_min_max_vals().
    """
    operation = code & OP_MASK
    is_64 = code & CLASS_MASK == ALU64
    if operation not in (ADD, SUB) or not isinstance(operand, int):
        return 0
    delta = signed(operand, 64 if is_64 else 32)
    if not scalars.S32_MIN <= delta <= scalars.S32_MAX or not (is_64 or scalars.fits_u32(left)):
        return 0
    if operation == SUB:
        delta = -delta
    if delta > scalars.S32_MAX:
        return 0
    return delta << 2 | (_ADDED_64 if is_64 else _ADDED_32)


def _linked_number(known: Number, link: int, value: Scalar) -> Number:
    """What a number is, of which one that it is linked to is known better.

    Source: linux v6.18.44, kernel/bpf/verifier.c, sync_linked_regs().
    """
    widths = (link & _WIDTH) | (value[2] & _WIDTH)
    if widths == _ADDED_32 | _ADDED_64:
        return value if link & _WIDTH != value[2] & _WIDTH else known
    gap = (value[2] >> 2) - (link >> 2)
    if not gap:
        return known
    moved_by = scalarops.arithmetic(ALU64 | ADD, known, gap & U64)
    return scalars.low_half(moved_by) if widths == _ADDED_32 else moved_by


def pointer_alu(code: int, left: Value, right: Value) -> Value:
    """Arithmetic of which one side is a pointer, or not known at all."""
    operation = code & OP_MASK
    if code & CLASS_MASK == ALU:
        return LOADED[4]
    if operation not in (ADD, SUB):
        # A number whatever comes out: the domain of scalars says how large.
        return scalarops.arithmetic(code, as_scalar(left), as_scalar(right))
    if is_pointer(right):
        if operation == SUB or is_pointer(left):
            return UNKNOWN
        left, right = right, left
    if left is None:
        return None
    if is_pointer(left):
        return moved(left, as_scalar(right), 1 if operation == ADD else -1)
    return UNKNOWN
