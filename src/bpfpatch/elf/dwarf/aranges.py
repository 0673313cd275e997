""".debug_aranges: which addresses a unit is about.

Source: DWARF 5, section 6.1.2 and 7.21.
"""

from __future__ import annotations

from bpfpatch.errors import UnsupportedError

from .move import CodeMove, Place
from .sections import ADDRESS_SIZE, DebugSection


def move_aranges(section: DebugSection, move: CodeMove) -> None:
    """Put new addresses and lengths.

    Raises:
        FormatError: it is cut off.
        UnsupportedError: it is of a form that is not known.
    """
    cursor = section.cursor()
    while cursor.pos < len(section.data):
        unit = cursor.unit()
        version = cursor.number(2)
        cursor.skip(unit.offset_size)
        size, segment = cursor.u8(), cursor.u8()
        if (version, size, segment) != (2, ADDRESS_SIZE, 0):
            raise UnsupportedError(
                f"{section.name} has version {version}, addresses of {size} bytes and segments of "
                f"{segment}"
            )
        at = cursor.skip(-(cursor.pos - unit.start) % (2 * ADDRESS_SIZE))
        for at in range(cursor.pos, unit.end - 2 * ADDRESS_SIZE + 1, 2 * ADDRESS_SIZE):
            _move_one(section, move, at)
        cursor.pos = unit.end


def _move_one(section: DebugSection, move: CodeMove, at: int) -> None:
    place = section.address(at)
    if place is None:
        return
    length = section.offset(at + ADDRESS_SIZE, ADDRESS_SIZE)
    start = move.start(place)
    end = max(start, move.end(Place(place.code, place.byte_off + length)))
    # Two zeros would end the list.
    section.put_address(at, start if start or end else ADDRESS_SIZE)
    section.put(at + ADDRESS_SIZE, end - start, ADDRESS_SIZE)
