"""Where addresses of code went."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import UnsupportedError
from bpfpatch.program import Remap

from ..space import INSN_SIZE, CodeSpace


class Place(NamedTuple):
    """An address: a byte of a code section, by its number among the code sections."""

    code: int
    byte_off: int


class CodeMove:
    """Maps addresses of the old code to addresses of the new.

    A range goes from a boundary between instructions to another, and so what
    was inserted at an instruction is in the ranges of that instruction. Of
    aligned functions the start stands after the padding, the end in front.

    Attributes:
        old: the code sections before.
        new: the code sections after.
        remap: from the old slots to the new.
    """

    __slots__ = ("_end", "_own", "_size", "_start", "new", "old", "remap")

    def __init__(self, old: CodeSpace, new: CodeSpace, remap: Remap) -> None:
        self.old, self.new, self.remap = old, new, remap
        # Looked up one at a time, which a memoryview does faster than an array.
        self._start: dict[int, memoryview[int]] = {}
        self._end: dict[int, memoryview[int]] = {}
        self._own = remap.own
        self._size: list[int] = old.n_bytes(np.arange(len(old.sections))).tolist()

    def start(self, place: Place) -> int:
        """Byte of its section where what started at a place starts."""
        starts = self._start.get(place.code)
        if starts is None:
            starts = self._start[place.code] = self._starts(place.code).data
        return self._look_up(starts, place)

    def end(self, place: Place) -> int:
        """Byte of its section where what ended at a place ends."""
        ends = self._end.get(place.code)
        if ends is None:
            ends = self._end[place.code] = self._ends(place.code).data
        return self._look_up(ends, place)

    def _look_up(self, new: memoryview[int], place: Place) -> int:
        """The new byte of a place; new bytes are by boundary."""
        short = -place.byte_off % INSN_SIZE
        if not short:
            return new[self._word(place)]
        word = self._word(Place(place.code, place.byte_off + short))
        # gcc ends what a call clobbers a byte in front of where it returns to.
        return max(new[word] - short, new[word - 1])

    def after(self, place: Place) -> int:
        """Where a call that stood in front of a place returns to."""
        word = self._word(place)
        if word == 0:
            return self.start(place)
        slot = int(self.old.slot(place.code, (word - 1) * INSN_SIZE))
        new = int(self._own[slot])
        return self.end(place) if new < 0 else self._local(new) + INSN_SIZE

    def at(self, place: Place) -> int:
        """Where the instruction itself at a place is."""
        word = self._word(place)
        if word * INSN_SIZE < int(self.old.n_bytes(place.code)):
            new = int(self._own[int(self.old.slot(place.code, word * INSN_SIZE))])
            if new >= 0:
                return self._local(new)
        return self.start(place)

    def starts_of(self, code: int, byte_off: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) new slots of the boundaries in front of what started at old bytes of a section."""
        for one in byte_off[(byte_off % INSN_SIZE != 0) | (byte_off < 0)][:1].tolist():
            self._word(Place(code, one))
        if byte_off.size:
            self._word(Place(code, int(byte_off.max())))
        return self._bounds(code)[byte_off // INSN_SIZE]

    def local(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) bytes of their sections where new slots are."""
        return self.new.local_bytes(slots)

    def _local(self, slot: int) -> int:
        return int(self.new.local_bytes(np.array([slot]))[0])

    def _word(self, place: Place) -> int:
        word, rest = divmod(place.byte_off, INSN_SIZE)
        if rest or not 0 <= place.byte_off <= self._size[place.code]:
            section = next((k for k, v in self.old.names.items() if v == place.code), place.code)
            raise UnsupportedError(
                f"DWARF has the address {place.byte_off:#x} in {section}, where no instruction "
                "starts"
            )
        return word

    def _slots(self, code: int) -> NDArray[np.int64]:
        """(w + 1,) old slot of each word of a section, and the one after the last."""
        n_words = int(self.old.n_bytes(code)) // INSN_SIZE
        slots = np.asarray(self.old.slot(code, np.arange(n_words) * INSN_SIZE), np.int64)
        return np.append(slots, self.old.starts[code + 1])

    def _bounds(self, code: int) -> NDArray[np.int64]:
        """(w + 1,) new slot of the boundary in front of each word."""
        bounds = self.remap.bound[self._slots(code)].astype(np.int64)
        return np.clip(bounds, self.new.starts[code], self.new.starts[code + 1])

    def _starts(self, code: int) -> NDArray[np.int64]:
        bounds = self._bounds(code)
        size = int(self.new.n_bytes(code))
        out = np.full(bounds.size, size, np.int64)
        is_inside = bounds < self.new.starts[code + 1]
        if is_inside.any():
            out[is_inside] = self.new.local_bytes(bounds[is_inside])
        return out

    def _ends(self, code: int) -> NDArray[np.int64]:
        if self.old.padding is None:
            return self._starts(code)
        out = self._starts(code)
        slots = self._slots(code)
        # After a word that is an instruction stands a boundary that is its end.
        after = np.flatnonzero(np.diff(slots) > 0) + 1
        bounds = self.remap.bound[slots[after - 1] + 1].astype(np.int64)
        bounds = np.clip(bounds, self.new.starts[code], self.new.starts[code + 1])
        is_inside = bounds > self.new.starts[code]
        out[after[~is_inside]] = 0
        out[after[is_inside]] = self.new.local_bytes(bounds[is_inside] - 1) + INSN_SIZE
        return out
