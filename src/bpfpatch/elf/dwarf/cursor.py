"""Read and write the numbers that DWARF is made of.

Source: DWARF 5, section 7.4 (32- and 64-bit formats) and 7.6 (LEB128).
"""

from __future__ import annotations

from typing import Final

from bpfpatch.errors import FormatError

from ..raw import ByteOrder

MAX_LEB_BYTES: Final = 16
"""So many bytes hold any 64-bit number, with some padding; more are a trick."""

_LENGTH_64: Final = 0xFFFF_FFFF
_LENGTH_RESERVED: Final = 0xFFFF_FFF0


class Cursor:
    """A place in a section's bytes, which reading moves on. No read goes past ``end``."""

    __slots__ = ("_base", "data", "end", "name", "order", "pos")

    def __init__(
        self, data: bytes, order: ByteOrder, name: str, base: int, pos: int = 0, end: int = -1
    ) -> None:
        self.data, self.order, self.name = data, order, name
        self._base = base
        self.pos = pos
        self.end = len(data) if end < 0 else end

    def fail(self, what: str, pos: int | None = None) -> FormatError:
        """An error at a place, by default this one."""
        at = self.pos if pos is None else pos
        return FormatError(f"{self.name} at {at:#x}: {what}", self._base + at)

    def skip(self, n_bytes: int) -> int:
        """Go on by so many bytes, and return where they start."""
        pos = self.pos
        if n_bytes > self.end - pos:
            raise self.fail(f"{n_bytes} bytes are cut off at {self.end:#x}")
        self.pos = pos + n_bytes
        return pos

    def number(self, width: int) -> int:
        """An unsigned integer of so many bytes."""
        pos = self.skip(width)
        return int.from_bytes(self.data[pos : pos + width], self.order)

    def u8(self) -> int:
        """A byte."""
        pos = self.pos
        if pos >= self.end:
            raise self.fail("a byte is cut off")
        self.pos = pos + 1
        return self.data[pos]

    def s8(self) -> int:
        """A signed byte."""
        return (self.u8() ^ 0x80) - 0x80

    def uleb(self) -> int:
        """An unsigned LEB128."""
        start, end, data = self.pos, self.end, self.data
        if start < end and data[start] < 0x80:  # most are of one byte
            self.pos = start + 1
            return data[start]
        value = shift = 0
        for pos in range(start, min(start + MAX_LEB_BYTES, end)):
            byte = data[pos]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self.pos = pos + 1
                return value
        if end - start < MAX_LEB_BYTES:
            raise self.fail("a byte is cut off", max(start, end))
        raise self.fail("a LEB128 does not end", start)

    def sleb(self) -> int:
        """A signed LEB128."""
        start = self.pos
        value = self.uleb()
        sign = 1 << (7 * (self.pos - start) - 1)
        return (value ^ sign) - sign

    def string(self) -> bytes:
        """Bytes up to a zero."""
        end = self.data.find(b"\0", self.pos, self.end)
        if end < 0:
            raise self.fail("a string does not end")
        out = self.data[self.pos : end]
        self.pos = end + 1
        return out

    def unit(self) -> Unit:
        """The length in front of a unit, and so the format of its offsets."""
        start, offset_size = self.pos, 4
        length = self.number(4)
        if length == _LENGTH_64:
            offset_size, length = 8, self.number(8)
        elif length >= _LENGTH_RESERVED:
            raise self.fail(f"a unit's length is {length:#x}, which is reserved", start)
        if length > self.end - self.pos:
            raise self.fail(f"a unit of {length:#x} bytes is cut off", start)
        return Unit(start, self.pos, self.pos + length, offset_size)


class Unit:
    """Where a unit is: its length field, what that counts, and the width of its offsets."""

    __slots__ = ("end", "offset_size", "pos", "start")

    def __init__(self, start: int, pos: int, end: int, offset_size: int) -> None:
        self.start, self.pos, self.end, self.offset_size = start, pos, end, offset_size

    @property
    def length_pos(self) -> int:
        """Where the length itself is."""
        return self.pos - self.offset_size
