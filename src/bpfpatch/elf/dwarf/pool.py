""".debug_addr: addresses that units name by number.

Source: DWARF 5, section 7.27.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from bpfpatch.errors import UnsupportedError

from .move import CodeMove, Place
from .sections import ADDRESS_SIZE, SPLIT, TOMBSTONES, DebugSection


class Use(Enum):
    """What an address is about, and so where it goes."""

    START = "start"
    END = "end"
    RETURN = "return"
    CALL = "call"


_FIRST: Final = {Use.START: 0, Use.END: 1, Use.CALL: 2, Use.RETURN: 3}


def moved(move: CodeMove, place: Place, use: Use) -> int:
    """Where an address goes, as a byte of its section."""
    if use is Use.START:
        return move.start(place)
    if use is Use.END:
        return move.end(place)
    return move.at(place) if use is Use.CALL else move.after(place)


class AddressPool:
    """All of .debug_addr, and who uses which of its addresses for what."""

    def __init__(self, section: DebugSection | None, move: CodeMove) -> None:
        self._section, self._move = section, move
        self._uses: dict[int, set[Use]] = {}
        self._places: dict[int, Place | None] = {}
        self._fields: set[int] = set()
        if section is not None:
            self._read(section)

    def _read(self, section: DebugSection) -> None:
        cursor = section.cursor()
        while cursor.pos < len(section.data):
            unit = cursor.unit()
            version, size, segment = cursor.number(2), cursor.u8(), cursor.u8()
            if version == 0:  # before DWARF 5 there is no header
                raise UnsupportedError(f"it is {SPLIT}")
            if (version, size, segment) != (5, ADDRESS_SIZE, 0):
                raise UnsupportedError(
                    f"{section.name} has version {version}, addresses of {size} bytes and segments "
                    f"of {segment}"
                )
            if (unit.end - cursor.pos) % ADDRESS_SIZE:
                raise cursor.fail("addresses are cut off")
            self._fields.update(range(cursor.pos, unit.end, ADDRESS_SIZE))
            cursor.pos = unit.end

    def use(self, base: int, index: int, use: Use) -> Place | None:
        """Note what an address is for.

        Returns:
            The old place, or None where it is not in code.
        """
        pos = base + index * ADDRESS_SIZE
        if self._section is None or pos not in self._fields:
            raise UnsupportedError(f"DWARF names address {index} of .debug_addr, which has none")
        known = self._uses.get(pos)
        if known is None:
            known = self._uses[pos] = set()
            self._places[pos] = self._section.address(pos)
        known.add(use)
        return self._places[pos]

    def is_dead(self, base: int, index: int) -> bool:
        """Whether an address is nowhere: a constant that stands for what a linker left out."""
        assert self._section is not None
        pos = base + index * ADDRESS_SIZE
        value = self._section.offset(pos, ADDRESS_SIZE)
        return self._section.is_constant(pos) and value in TOMBSTONES

    def write(self) -> None:
        """Write all addresses, once every use is known."""
        for pos in sorted(self._fields):
            assert self._section is not None
            place = self._section.address(pos)
            if place is None:
                continue
            uses = self._uses.get(pos, {Use.START})
            if len(uses) > 1:
                uses = uses & {Use.START, Use.END} or uses
            new = {moved(self._move, place, use) for use in uses}
            if len(new) > 1:
                raise UnsupportedError(
                    f"{self._section.name} has one address at {pos:#x} for what is now at two"
                )
            self._section.put_address(pos, new.pop())
