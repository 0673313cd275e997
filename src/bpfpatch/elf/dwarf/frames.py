""".debug_frame: how to unwind each function.

Source: DWARF 5, sections 6.4.1, 6.4.2 and 7.24, table 7.29.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch.errors import UnsupportedError

from .cursor import Cursor, Unit
from .move import CodeMove, Place
from .sections import ADDRESS_SIZE, TOMBSTONES, DebugSection, Late

_ADVANCE: Final = {0x02: 1, 0x03: 2, 0x04: 4}
_OPERANDS: Final = {
    0x00: "",
    **dict.fromkeys((0x05, 0x09, 0x0C, 0x14), "uu"),
    **dict.fromkeys((0x06, 0x07, 0x08, 0x0D, 0x0E, 0x2E), "u"),
    **dict.fromkeys((0x0A, 0x0B, 0x2D), ""),
    0x0F: "b",
    **dict.fromkeys((0x10, 0x16), "ub"),
    **dict.fromkeys((0x11, 0x12, 0x15), "us"),
    0x13: "s",
}


@dataclass(frozen=True, slots=True)
class _Cie:
    code_align: int


def move_frames(section: DebugSection, move: CodeMove) -> None:
    """Put new addresses, lengths and advances.

    Raises:
        FormatError: it is cut off.
        UnsupportedError: it is of a form that is not known.
    """
    cies: dict[int, _Cie] = {}
    for is_cie in (True, False):  # an entry may stand in front of what it refers to
        cursor = section.cursor()
        while cursor.pos < len(section.data):
            unit = cursor.unit()
            at = cursor.skip(unit.offset_size)
            number = section.offset(at, unit.offset_size)
            if (number == (1 << 8 * unit.offset_size) - 1) != is_cie:
                pass
            elif is_cie:
                cies[unit.start] = _read_cie(section.cursor(cursor.pos, unit.end))
            else:
                _move_entry(section, move, unit, at, cies.get(number))
                late = Late(at, unit.offset_size, section, number, 0)
                section.late.append(late)
            cursor.pos = unit.end


def _read_cie(cursor: Cursor) -> _Cie:
    version = cursor.u8()
    augmentation = cursor.string()
    if version not in (1, 3, 4) or augmentation:
        raise UnsupportedError(
            f"{cursor.name} has version {version} with augmentation {augmentation!r}"
        )
    if version == 4 and (cursor.u8(), cursor.u8()) != (ADDRESS_SIZE, 0):
        raise UnsupportedError(f"{cursor.name} has addresses that are not of 8 bytes")
    code_align = cursor.uleb()
    cursor.sleb()
    if version == 1:
        cursor.u8()
    else:
        cursor.uleb()
    while cursor.pos < cursor.end:
        if _read_advance(cursor) is not None:
            raise UnsupportedError(f"{cursor.name} has an advance in what all functions share")
    return _Cie(code_align)


def _read_advance(cursor: Cursor) -> int | None:
    """Read one instruction: how far it advances, in units, or None."""
    at = cursor.pos
    code = cursor.u8()
    if code >> 6 == 1:
        return code & 0x3F
    if code in _ADVANCE:
        return cursor.number(_ADVANCE[code])
    operands = "" if code >> 6 == 3 else "u" if code >> 6 == 2 else _OPERANDS.get(code)
    if operands is None:
        raise UnsupportedError(f"{cursor.name} has the instruction {code:#x} at {at:#x}")
    for kind in operands:
        value = cursor.uleb()
        if kind == "b":
            cursor.skip(value)
    return None


def _move_entry(
    section: DebugSection, move: CodeMove, unit: Unit, at: int, cie: _Cie | None
) -> None:
    cursor = section.cursor(at + unit.offset_size, unit.end)
    if cie is None:
        raise cursor.fail("an entry refers to none that is shared", at)
    start_at = cursor.skip(ADDRESS_SIZE)
    length_at = cursor.skip(ADDRESS_SIZE)
    place = section.address(start_at)
    length = section.offset(length_at, ADDRESS_SIZE)
    if place is None:
        if length and section.offset(start_at, ADDRESS_SIZE) not in TOMBSTONES:
            raise cursor.fail("an entry has no address that a relocation would make", start_at)
        return
    start = move.start(place)
    end = max(start, move.end(Place(place.code, place.byte_off + length)))
    section.put_address(start_at, start)
    section.put(length_at, end - start, ADDRESS_SIZE)
    first = cursor.pos
    new = _instructions(section, move, cursor, place, cie)
    if new is not None:
        padding = -(first - unit.start + len(new)) % ADDRESS_SIZE
        section.replace(first, unit.end, new + bytes(padding))
    late = Late(unit.length_pos, unit.offset_size, section, unit.end, unit.pos)
    section.late.append(late)


def _instructions(
    section: DebugSection, move: CodeMove, cursor: Cursor, place: Place, cie: _Cie
) -> bytes | None:
    """An entry's instructions with new advances; None where it has none."""
    out, byte_off = bytearray(), place.byte_off
    old_place, last = move.start(place), None
    n_bytes = 0
    while cursor.pos < cursor.end:
        at = cursor.pos
        units = _read_advance(cursor)
        if units is None:
            code = section.data[at : cursor.pos]
            out += code
            if code != b"\0":
                n_bytes = len(out)
            continue
        byte_off += units * cie.code_align
        last = move.start(Place(place.code, byte_off))
        out += _advance(last - old_place, cie.code_align, section)
        old_place, n_bytes = last, len(out)
    return None if last is None else bytes(out[:n_bytes])


def _advance(distance: int, code_align: int, section: DebugSection) -> bytes:
    units, rest = divmod(distance, code_align or 1)
    if rest or units >> 32:
        raise UnsupportedError(f"{section.name}: an advance of {distance} bytes has no form")
    if units == 0:
        return b""
    if units < 0x40:
        return bytes([0x40 | units])
    width = 1 if units < 1 << 8 else 2 if units < 1 << 16 else 4
    code = {1: 0x02, 2: 0x03, 4: 0x04}[width]
    return bytes([code]) + units.to_bytes(width, section.order)
