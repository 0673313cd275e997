"""Write LEB128 numbers, which DWARF and LLVM's own sections are made of.

Source: DWARF 5, section 7.6.
"""

from __future__ import annotations

from typing import Final

_SHORT: Final = [bytes([value]) for value in range(0x80)]


def uleb_bytes(value: int) -> bytes:
    """An unsigned LEB128, as short as can be."""
    if 0 <= value < 0x80:
        return _SHORT[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def sleb_bytes(value: int) -> bytes:
    """A signed LEB128, as short as can be."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def leb_in(value: int, n_bytes: int, *, signed: bool) -> bytes | None:
    """A LEB128 that fills just so many bytes, or None where it is too large."""
    bits = 7 * n_bytes
    fits = -(1 << (bits - 1)) <= value < 1 << (bits - 1) if signed else 0 <= value < 1 << bits
    if not fits:
        return None
    out = [(value >> (7 * index)) & 0x7F | 0x80 for index in range(n_bytes)]
    out[-1] &= 0x7F
    return bytes(out)
