"""Addresses in location expressions.

Source: DWARF 5, section 7.7.1, table 7.9; the GNU operations are those of
binutils 2.40, include/dwarf2.def.
"""

from __future__ import annotations

from typing import Final, Protocol

from bpfpatch.errors import UnsupportedError

from .cursor import Cursor

# Operands: "a" 8 bytes that may be an address, digits a number of bytes, "u" and "s" LEB128,
# "x" an index into .debug_addr, "r" an offset as wide as the unit's, "b" a block with a LEB128
# length, "B" one with a length of a byte. An entry value's expression is read as what follows.
_OPERANDS: Final[dict[int, str]] = {
    0x03: "a",
    0x06: "",
    **dict.fromkeys((0x08, 0x09, 0x15, 0x94, 0x95), "1"),
    **dict.fromkeys((0x0A, 0x0B, 0x28, 0x2F, 0x98), "2"),
    **dict.fromkeys((0x0C, 0x0D, 0x99, 0xFA), "4"),
    **dict.fromkeys((0x0E, 0x0F), "a"),
    **dict.fromkeys((0x10, 0x23, 0x90, 0x93, 0xA3, 0xA8, 0xA9, 0xF3, 0xF7, 0xF9), "u"),
    **dict.fromkeys((0x11, 0x91, *range(0x70, 0x90)), "s"),
    **dict.fromkeys((0x12, 0x13, 0x14, *range(0x16, 0x23), *range(0x24, 0x28)), ""),
    **dict.fromkeys((*range(0x29, 0x2F), *range(0x30, 0x70)), ""),
    **dict.fromkeys((0x96, 0x97, 0x9B, 0x9C, 0x9F, 0xE0, 0xF0), ""),
    0x92: "us",
    0x9D: "uu",
    **dict.fromkeys((0x9A, 0xFD), "r"),
    0x9E: "b",
    **dict.fromkeys((0xA0, 0xF2), "rs"),
    **dict.fromkeys((0xA1, 0xA2), "x"),
    **dict.fromkeys((0xA4, 0xF4), "uB"),
    **dict.fromkeys((0xA5, 0xF5), "uu"),
    **dict.fromkeys((0xA6, 0xA7, 0xF6), "1u"),
}


class Addresses(Protocol):
    """What takes the addresses that an expression has."""

    def field(self, pos: int) -> None:
        """Take 8 bytes that may be an address."""

    def indexed(self, index: int) -> None:
        """Take an index into .debug_addr."""


def read_expression(cursor: Cursor, offset_size: int, addresses: Addresses) -> None:
    """Go through an expression from the cursor to its end.

    Raises:
        FormatError: it is cut off.
        UnsupportedError: it has an operation that is not known.
    """
    while cursor.pos < cursor.end:
        at = cursor.pos
        code = cursor.u8()
        operands = _OPERANDS.get(code)
        if operands is None:
            raise UnsupportedError(f"{cursor.name} has the operation {code:#x} at {at:#x}")
        for kind in operands:
            _read_operand(cursor, kind, offset_size, addresses)


def _read_operand(cursor: Cursor, kind: str, offset_size: int, addresses: Addresses) -> None:
    if kind in "us":
        cursor.uleb()
    elif kind == "a":
        addresses.field(cursor.skip(8))
    elif kind == "x":
        addresses.indexed(cursor.uleb())
    elif kind == "r":
        cursor.skip(offset_size)
    elif kind == "b":
        cursor.skip(cursor.uleb())
    elif kind == "B":
        cursor.skip(cursor.u8())
    else:
        cursor.skip(int(kind))
