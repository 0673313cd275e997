"""What is known at one place of a program, on one way there or on several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpfpatch.facts.columns import MemType

from .scalars import (
    LOADED,
    Number,
    Pointer,
    Stored,
    Value,
    fits_u32,
    is_scalar,
    truncated,
    without_id,
)
from .values import PARTIAL, Ids, covers, is_pointer, join, lost, pointer

Frame = dict[int, Stored]
"""The 8-byte slots of a stack frame, by byte_off // 8, below 0.

A slot is a value of 8 bytes, or ``(PARTIAL, value, size, zeros)``: a value in its
lower ``size`` bytes, and a bit for each byte that is known to be 0. One that is
absent holds anything.
"""
Caller = tuple[int, list[Value], bool]
"""Slot to go on from, registers there, and whether the callee is a callback."""

FRAME_POINTER: Final = 10
"""The number of R10."""
MOST_FRAMES: Final = 8
"""How many frames there may be at a time."""


class VerifierState:
    """Registers and stack.

    Attributes:
        regs: R0 to R9; None for what may be anything.
        stacks: frames, from the outermost on.
        callers: what called the frames but the first.
        chain: number of the calls that led here.
        lost: what a value that is not known may point to all the same, see `values.lost`.
    """

    __slots__ = ("_constants", "callers", "chain", "lost", "regs", "stacks")

    def __init__(
        self,
        regs: list[Value],
        stacks: list[Frame],
        callers: tuple[Caller, ...],
        chain: int,
        lost: int = 0,
    ) -> None:
        self.regs = regs
        self.stacks = stacks
        self.callers = callers
        self.chain = chain
        self.lost = lost
        self._constants: list[tuple[int, int]] | None = None

    def copy(self) -> VerifierState:
        """One that can be changed alone."""
        stacks = [frame.copy() for frame in self.stacks]
        return VerifierState(self.regs[:], stacks, self.callers, self.chain, self.lost)

    def covers(self, new: VerifierState) -> bool:
        """Whether all that can happen in the new state can happen in this one.

        The state must not change any more: it is asked often.
        """
        if new.lost & ~self.lost:
            return False
        regs = new.regs
        if self._constants is None:
            self._constants = [(i, reg) for i, reg in enumerate(self.regs) if type(reg) is int]
        for register, value in self._constants:  # what differs most often, and is found at once
            if regs[register] != value:
                return False
        ids = Ids()
        for old_reg, reg in zip(self.regs, regs, strict=True):
            if type(old_reg) is tuple and not covers(old_reg, reg, ids):
                return False
        for old_frame, frame in zip(self.stacks, new.stacks, strict=True):
            for slot, stored in old_frame.items():
                if not covers(stored, frame.get(slot), ids):
                    return False
        # Also registers that are the same ones have ids, which those above share.
        for (_, old_regs, _), (_, regs, _) in zip(self.callers, new.callers, strict=True):
            for register in range(10):
                if not covers(old_regs[register], regs[register], ids):
                    return False
        return True

    def joined(self, new: VerifierState, ids: Ids, *, widen: bool) -> VerifierState:
        """The state that is both."""
        regs = [join(a, b, ids, widen=widen) for a, b in zip(self.regs, new.regs, strict=True)]
        stacks = []
        for mine, other in zip(self.stacks, new.stacks, strict=True):
            frame: Frame = {}
            for slot, value in mine.items():
                both = join(value, other.get(slot), ids, widen=widen)
                if both is not None:
                    frame[slot] = both
            for slot in other.keys() - mine.keys():
                ids.lost |= lost(other[slot])
            stacks.append(frame)
        callers = []
        for (back, mine_regs, kind), (_, other_regs, _) in zip(
            self.callers, new.callers, strict=True
        ):
            both_regs = [
                join(a, b, ids, widen=widen) for a, b in zip(mine_regs, other_regs, strict=True)
            ]
            callers.append((back, both_regs, kind))
        return VerifierState(
            regs, stacks, tuple(callers), self.chain, self.lost | new.lost | ids.lost
        )

    def forget(self, frame: int, low: int, high: int) -> None:
        """A frame's bytes from low up to high, without it, may be anything now."""
        for value in forget_stack(self.stacks[frame], low, high):
            self.lost |= lost(value)

    def forget_frames(self) -> None:
        """All bytes of all frames may be anything now."""
        for frame in self.stacks:
            for value in frame.values():
                self.lost |= lost(value)
            frame.clear()

    def replace(self, wanted: object, index: int, new: Callable[[Pointer], Value] | Value) -> None:
        """Put a value in place of all pointers of which one field is this, everywhere.

        Args:
            wanted: the field's value.
            index: which field of a pointer.
            new: None, 0, or a function of the pointer's tuple.
        """

        def change(value: Pointer) -> Value:
            return new(value) if callable(new) else new

        for values in (self.regs, *(regs for _, regs, _ in self.callers)):
            for register, value in enumerate(values):
                if is_pointer(value) and value[index] == wanted:
                    values[register] = change(value)
        for frame in self.stacks:
            for slot, stored in frame.items():
                if is_pointer(stored) and stored[index] == wanted:
                    frame[slot] = change(stored)

    def own_callers(self) -> None:
        """Make the callers' registers this state's own, before they are changed."""
        if self.callers:
            self.callers = tuple((back, regs[:], kind) for back, regs, kind in self.callers)


_FRAME_POINTERS: Final = tuple(pointer(MemType.STACK, frame) for frame in range(MOST_FRAMES))


def frame_pointer(state: VerifierState) -> Value:
    """The value of R10."""
    return _FRAME_POINTERS[len(state.stacks) - 1]


def write_stack(frame: Frame, byte_off: int, size: int, value: Value, *, is_imm: bool) -> None:
    """Store into a stack frame.

    Source: linux v6.18, kernel/bpf/verifier.c, check_stack_write_fixed_off().
    """
    slot, byte = byte_off >> 3, byte_off & 7
    if size == 8 and byte == 0:
        frame[slot] = value
        return
    old = frame.get(slot)
    zeros = old[3] if isinstance(old, tuple) and old[0] == PARTIAL else 0
    touched = ((1 << size) - 1) << byte
    zeros &= ~touched
    if byte == 0 and value is not None and is_scalar(value):
        if not is_imm and isinstance(value, tuple) and not (size == 4 and fits_u32(value)):
            value = without_id(value)
        frame[slot] = (PARTIAL, truncated_keeping_id(value, size), size, zeros)
        return
    if isinstance(value, int) and value & ((1 << 8 * size) - 1) == 0:
        zeros |= touched
    frame[slot] = (PARTIAL, None, 0, zeros)


def truncated_keeping_id(value: Number, size: int) -> Number:
    """The lower bytes; a number that they hold whole stays linked to its copies."""
    if isinstance(value, tuple) and value[1]:
        if size == 4 and fits_u32(value):
            return value
        value = without_id(value)
    return truncated(value, size)


def read_stack(frame: Frame, byte_off: int, size: int) -> Value:  # noqa: PLR0911 - one way out for each kind
    """What a load from a stack frame gives.

    Source: linux v6.18, kernel/bpf/verifier.c, check_stack_read_fixed_off().
    """
    slot, byte = byte_off >> 3, byte_off & 7
    found = frame.get(slot)
    if found is None:
        return LOADED[size]
    if isinstance(found, tuple) and found[0] == PARTIAL:
        _, value, n_bytes, zeros = found
        if byte == 0 and size <= n_bytes and value is not None:
            return value if size == n_bytes else truncated(without_id(value), size)
        wanted = ((1 << size) - 1) << byte
        if isinstance(value, int) and value == 0 and byte + size <= n_bytes:
            return 0
        return 0 if zeros & wanted == wanted else LOADED[size]
    if size == 8 and byte == 0:
        return found
    if not is_scalar(found):
        return LOADED[size]
    if byte == 0:
        return truncated(without_id(found), size)
    return 0 if found == 0 else LOADED[size]


def spilled_constant(frame: Frame, byte_off: int, size: int) -> int | None:
    """A constant that was stored with just this size, or zeros; None for anything else.

    Of a constant that was stored with twice the size the upper half counts as the whole.

    Source: linux v6.18, kernel/bpf/verifier.c, get_constant_map_key().
    """
    slot, byte = byte_off >> 3, byte_off & 7
    found = frame.get(slot)
    value: Stored
    if isinstance(found, tuple) and found[0] == PARTIAL:
        _, value, n_bytes, zeros = found
        wanted = ((1 << size) - 1) << byte
        if byte + size <= 8 and zeros & wanted == wanted:
            return 0
    else:
        value, n_bytes = found, 8
    return value if isinstance(value, int) and n_bytes - byte == size else None


def forget_stack(frame: Frame, low: int, high: int) -> list[Stored]:
    """Bytes from low up to high, without it, may be anything now; what is gone as a whole."""
    first, last = low >> 3, (high - 1) >> 3
    if last - first > len(frame):
        slots = [slot for slot in frame if first <= slot <= last]
    else:
        slots = [slot for slot in range(first, last + 1) if slot in frame]
    gone = []
    for slot in slots:
        start = slot << 3
        found = frame.pop(slot)
        gone.append(found)
        if not isinstance(found, tuple) or found[0] != PARTIAL:
            continue
        touched = 0
        for byte in range(8):
            if low <= start + byte < high:
                touched |= 1 << byte
        if found[3] & ~touched:
            frame[slot] = (PARTIAL, None, 0, found[3] & ~touched)
    return gone
