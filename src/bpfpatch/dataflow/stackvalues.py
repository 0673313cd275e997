"""Values that matter for stack frames: addresses in them, and ranges of numbers added to those.

An address is an interval of places in one linear space. The frame of the function that is
followed ends at 0, and what an argument points at starts at a place of its own, as does what
is loaded from there. So one comparison of numbers tells what an address belongs to.
"""

from __future__ import annotations

from typing import Final

from bpfpatch.isa.semantics import ALU64, CLASS_MASK, OP_MASK, SRC_X, compute

DEEPEST: Final = 512
"""Bytes of a frame, at most."""
WORD: Final = 8
SPACE: Final = 1 << 20
"""Distance between two bases."""
_HALF: Final = SPACE // 2
LOADED: Final = 6
"""The base of what is loaded through an argument; 1 to 5 are the arguments, 0 is the frame."""
SCALAR: Final = 16
"""Key of R0's range in a `State`; those of the others follow."""

Address = tuple[int, int, bool]
"""The lowest and the highest place, and whether the register holds such an address for certain,
and no other one."""
Range = tuple[int, int]
"""The lowest and the highest number, signed."""
State = dict[int, Address | Range]
"""What addresses a register may hold, by its number; and a word of the frame, by its place, which
is negative. And by `SCALAR` + register which numbers it holds, if known."""

_MOV, _ADD, _SUB, _RSH, _LSH, _END = 0xB0, 0x00, 0x10, 0x70, 0x60, 0xD0
_AND, _OR, _XOR, _MUL, _DIV, _MOD, _ARSH = 0x50, 0x40, 0xA0, 0x20, 0x30, 0x90, 0xC0
_MOST: Final = (1 << 63) - 1
_MANY: Final = 1 << 60
"""What a number does not get to by being counted up or down in a loop: no loop goes on for that
long."""
_U32: Final = (1 << 32) - 1


def base_of(place: int) -> int:
    """The base that a place belongs to."""
    return (place + _HALF) // SPACE


def floor_of(base: int) -> int:
    """The place that stands for any, however low."""
    return base * SPACE - _HALF


def ceiling_of(base: int) -> int:
    """The same for any, however high."""
    return base * SPACE + _HALF - 1


def moved(address: Address, low: int, high: int) -> Address:
    """An address with a number from low to high added."""
    base, other = base_of(address[0]), base_of(address[1])
    bottom, top = address[0] + low, address[1] + high
    if address[0] == floor_of(base) or bottom < base * SPACE - DEEPEST:
        bottom = floor_of(base)
    if address[1] == ceiling_of(other) or top > other * SPACE + SPACE // 4:
        top = ceiling_of(other)
    return bottom, top, address[2] and low == high and bottom == top


def anywhere(address: Address) -> Address:
    """An address with an unknown number added."""
    return floor_of(base_of(address[0])), ceiling_of(base_of(address[1])), False


def joined(one: Address | None, other: Address | None) -> Address | None:
    """What may be either."""
    if one is None or other is None:
        found = one or other
        return None if found is None else (found[0], found[1], False)
    if one == other:
        return one
    return min(one[0], other[0]), max(one[1], other[1]), False


def merged(one: State, other: State) -> State:
    """What holds where two paths meet."""
    out: State = {}
    for key, value in one.items():
        found = other.get(key)
        if found == value:
            out[key] = value
        elif key >= SCALAR:
            if found is not None:
                out[key] = min(value[0], found[0]), max(value[1], found[1])
        elif found is None:
            out[key] = value[0], value[1], False
        else:
            out[key] = min(value[0], found[0]), max(value[1], found[1]), False
    for key, value in other.items():
        if key < SCALAR and key not in one:
            out[key] = value[0], value[1], False
    return out


def widened(before: State, after: State) -> State:
    """What has changed goes as far as it can, so that loops come to an end."""
    out: State = {}
    for key, value in after.items():
        old = before.get(key)
        if old is None or old == value:
            out[key] = value
        elif key < SCALAR:
            low, high = value[0], value[1]
            low = low if low == old[0] else floor_of(base_of(low))
            high = high if high == old[1] else ceiling_of(base_of(high))
            out[key] = low, high, False
        elif value[0] >= -2 * _MANY and value[1] <= 2 * _MANY:
            out[key] = (
                value[0] if value[0] == old[0] else -_MANY,
                value[1] if value[1] == old[1] else _MANY,
            )
    return out


def computed(code: int, off: int, left: Range | None, right: Range | None) -> Range | None:
    """The range of an arithmetic instruction's result, None for any.

    Args:
        code: the instruction's.
        off: its field of that name.
        left: range of the destination.
        right: range of the source, or of the immediate.
    """
    operation, is_wide = code & OP_MASK, code & CLASS_MASK == ALU64
    whole = None if is_wide else (0, _U32)
    is_signed = bool(off) and operation in (_DIV, _MOD, _MOV)
    if operation == _END or is_signed:
        return whole
    if operation == _MOV and right is not None and is_wide:
        return right
    if operation == _MOV:
        left = 0, 0
    if left is not None and right is not None and left[0] == left[1] and right[0] == right[1]:
        value = compute(code, off, left[0] % (1 << 64), right[0] % (1 << 64), right[0])
        return whole if value is None else _exact(value)
    found = right if operation == _MOV else None
    if operation != _MOV:
        found = _bounded(operation, left, right, 64 if is_wide else 32)
    if found is None or (not is_wide and not 0 <= found[0] <= found[1] <= _U32):
        return whole
    return found


def _bounded(operation: int, left: Range | None, right: Range | None, n_bits: int) -> Range | None:
    if operation == _AND:
        highs = [one[1] for one in (left, right) if one is not None and one[0] >= 0]
        return (0, min(highs)) if highs else None
    # Half of the 32-bit numbers are negative to an arithmetic shift.
    is_signed = operation == _ARSH and left is not None and left[1] >> (n_bits - 1)
    if operation in (_DIV, _MOD, _ARSH) and left is not None and left[0] >= 0 and not is_signed:
        is_less = operation == _MOD and right is not None and right[0] > 0
        return 0, min(left[1], right[1]) if is_less and right is not None else left[1]
    if right is None:
        return None
    amount = right[0]
    if operation == _RSH and 0 < amount == right[1] < n_bits:
        high = left[1] if left is not None and left[0] >= 0 else (1 << 64) - 1
        return 0, high >> amount
    if left is None:
        return None
    out = None
    if operation == _ADD:
        out = left[0] + right[0], left[1] + right[1]
    elif operation == _SUB:
        out = left[0] - right[1], left[1] - right[0]
    elif operation in (_OR, _XOR, _MUL) and left[0] >= 0 and right[0] >= 0:
        sizes = left[1].bit_length(), right[1].bit_length()
        out = 0, left[1] * right[1] if operation == _MUL else (1 << max(sizes)) - 1
    elif operation == _LSH and left[0] >= 0 and 0 <= amount == right[1] < n_bits:
        out = left[0] << amount, left[1] << amount
    return out if out is not None and out[0] >= -_MOST and out[1] <= _MOST else None


def _exact(value: int) -> Range:
    signed = value - (1 << 64) if value >> 63 else value
    return signed, signed


def bounded(code: int, imm: int, known: Range | None, *, is_taken: bool) -> Range | None:
    """What a comparison with an immediate says of its register on one of its ways.

    Args:
        code: of the conditional jump.
        imm: what it compares with.
        known: what is known of the register before.
        is_taken: which way.

    Returns:
        The range, None for any.
    """
    if code & SRC_X:
        return known
    is_narrow = code & CLASS_MASK == 0x06
    if is_narrow and (known is None or not 0 <= known[0] <= known[1] <= _U32 >> 1):
        return known
    low, high = _limits(code & OP_MASK, imm, is_taken)
    if known is None:
        return None if low is None or high is None else (low, high)
    return max(known[0], known[0] if low is None else low), min(
        known[1], known[1] if high is None else high
    )


def _limits(operation: int, imm: int, is_taken: bool) -> tuple[int | None, int | None]:
    """The least and the greatest number that go this way, as far as that bounds signed numbers."""
    if (operation == 0x10 and is_taken) or (operation == 0x50 and not is_taken):
        return imm, imm
    if operation in (0x20, 0x30, 0xA0, 0xB0):
        if imm < 0:
            return None, None
        below = {0x20: imm, 0x30: imm - 1, 0xA0: imm - 1, 0xB0: imm}[operation]
        return (0, max(below, 0)) if is_taken == (operation in (0xA0, 0xB0)) else (None, None)
    above = {0x60: imm + 1, 0x70: imm, 0xC0: imm, 0xD0: imm + 1}.get(operation)
    if above is None:
        return None, None
    if is_taken == (operation in (0x60, 0x70)):
        return above, _MOST
    return -_MOST - 1, above - 1


def address_in(state: State, register: int) -> Address | None:
    """The address in a register, or in a word of the frame."""
    return state.get(register)  # type: ignore[return-value]


def number_in(state: State, register: int) -> Range | None:
    """The range of a register's number."""
    return state.get(SCALAR + register)  # type: ignore[return-value]


def stored_in(state: State) -> list[Address]:
    """The addresses in the frame's words."""
    return [(one[0], one[1], False) for key, one in state.items() if key < 0]


def loaded_from(state: State, place: Address) -> Address | None:
    """The addresses that a load of 8 bytes may give."""
    found = None
    if base_of(place[0]) == 0:
        if place[2]:
            found = address_in(state, place[0]) if place[0] < 0 else None
        else:
            for key in [key for key in state if place[0] <= key <= place[1] and key < 0]:
                found = joined(found, address_in(state, key))
            found = None if found is None else (found[0], found[1], False)
    if base_of(place[1]) != 0:
        found = joined(found, (LOADED * SPACE, LOADED * SPACE, False))
    return found


def put_into(state: State, place: Address, size: int, value: Address | None) -> None:
    """Note what words of the frame hold after a store."""
    low, high, is_certain = place
    if is_certain:
        for key in [key for key in state if low - WORD < key < low + size and key < 0]:
            del state[key]
        if value is not None and -DEEPEST <= low < 0:
            state[low] = value
    elif value is not None and base_of(low) == 0:
        for key in range(max(low, -DEEPEST) // WORD * WORD, min(high, -WORD) + 1, WORD):
            state[key] = joined(address_in(state, key), (value[0], value[1], False)) or value
