""".debug_abbrev: of which attributes, in which forms, the entries of a unit are.

Source: DWARF 5, section 7.5.3 and 7.5.6, tables 7.5 and 7.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from bpfpatch.errors import UnsupportedError

from .cursor import Cursor
from .sections import ADDRESS_SIZE

# ---- forms
ADDR: Final = 0x01
SEC_OFFSET: Final = 0x17
EXPRLOC: Final = 0x18
INDIRECT: Final = 0x16
IMPLICIT_CONST: Final = 0x21
LOCLISTX: Final = 0x22
RNGLISTX: Final = 0x23
ADDRX: Final = {0x1B: 0, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4}
"""Widths of an index into .debug_addr; 0 is a LEB128."""
BLOCKS: Final = {0x0A: 1, 0x03: 2, 0x04: 4, 0x09: 0}
DATA: Final = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8}
UDATA: Final = 0x0F
SDATA: Final = 0x0D
STRING: Final = 0x08
_FIXED: Final = {
    **DATA,
    0x1E: 16,
    0x0C: 1,
    0x19: 0,
    IMPLICIT_CONST: 0,
    0x25: 1,
    0x26: 2,
    0x27: 3,
    0x28: 4,
    0x11: 1,
    0x12: 2,
    0x13: 4,
    0x14: 8,
    0x1C: 4,
    0x24: 8,
    0x20: 8,
}
_LEB: Final = frozenset({UDATA, SDATA, 0x15, 0x1A})
_OFFSETS: Final = frozenset({0x0E, 0x1F, 0x1D, SEC_OFFSET})
_REF_ADDR: Final = 0x10

# ---- attributes
LOCATION: Final = 0x02
STMT_LIST: Final = 0x10
LOW_PC: Final = 0x11
HIGH_PC: Final = 0x12
ENTRY_PC: Final = 0x52
RANGES: Final = 0x55
START_SCOPE: Final = 0x2C
ADDR_BASE: Final = 0x73
RNGLISTS_BASE: Final = 0x74
LOCLISTS_BASE: Final = 0x8C
CALL_RETURN_PC: Final = 0x7D
CALL_PC: Final = 0x81
LOCATIONS: Final = frozenset(
    {
        LOCATION,
        *(0x19, 0x22, 0x2A, 0x2E, 0x37, 0x38, 0x40, 0x46, 0x48, 0x4A, 0x4D, 0x4E, 0x4F),
        *(0x50, 0x51, 0x71, 0x7E, 0x7F, 0x83, 0x84, 0x85, 0x86),
        *(0x2111, 0x2112, 0x2113, 0x2114),
    }
)
"""Attributes that may be a location expression, or a list of them."""

INTERESTING: Final = LOCATIONS | {
    STMT_LIST,
    LOW_PC,
    HIGH_PC,
    ENTRY_PC,
    RANGES,
    START_SCOPE,
    ADDR_BASE,
    RNGLISTS_BASE,
    LOCLISTS_BASE,
    CALL_RETURN_PC,
    CALL_PC,
}


class Spec(NamedTuple):
    """One attribute; or, with no form, so many bytes that nothing is to be done about.

    Attributes:
        attr: its number.
        form: its form, or 0.
        value: the number that is all of it, or bytes to skip.
    """

    attr: int
    form: int
    value: int


@dataclass(frozen=True, slots=True)
class Abbrev:
    """A kind of entry."""

    tag: int
    specs: tuple[Spec, ...]


class Shape(NamedTuple):
    """What the size of a form depends on."""

    version: int
    offset_size: int


def fixed_size(form: int, shape: Shape) -> int | None:
    """Bytes of a form that has always as many, or None."""
    if form in _FIXED:
        return _FIXED[form]
    if form in _OFFSETS:
        return shape.offset_size
    if form == ADDR:
        return ADDRESS_SIZE
    if form == _REF_ADDR:
        return ADDRESS_SIZE if shape.version == 2 else shape.offset_size
    return ADDRX.get(form) or None


def skip_form(cursor: Cursor, form: int, shape: Shape) -> None:
    """Go past a value.

    Raises:
        FormatError: it is cut off.
        UnsupportedError: the form is not known.
    """
    size = fixed_size(form, shape)
    if size is not None:
        cursor.skip(size)
    elif form in _LEB or form in (LOCLISTX, RNGLISTX) or form in ADDRX:
        cursor.uleb()
    elif form == STRING:
        cursor.string()
    elif form in BLOCKS:
        cursor.skip(cursor.number(BLOCKS[form]) if BLOCKS[form] else cursor.uleb())
    elif form == EXPRLOC:
        cursor.skip(cursor.uleb())
    else:
        raise UnsupportedError(f"{cursor.name} has the form {form:#x} at {cursor.pos:#x}")


def read_abbrevs(cursor: Cursor, shape: Shape) -> dict[int, Abbrev]:
    """One table of abbreviations.

    Raises:
        FormatError: it is cut off, or has one number twice.
        UnsupportedError: a form is not known.
    """
    out: dict[int, Abbrev] = {}
    while True:
        at = cursor.pos
        number = cursor.uleb()
        if number == 0:
            return out
        if number in out:
            raise cursor.fail(f"abbreviation {number} is there twice", at)
        tag = cursor.uleb()
        cursor.u8()
        out[number] = Abbrev(tag, tuple(_specs(cursor, shape)))


def _specs(cursor: Cursor, shape: Shape) -> list[Spec]:
    out: list[Spec] = []
    seen: set[int] = set()
    while True:
        attr, form = cursor.uleb(), cursor.uleb()
        value = cursor.sleb() if form == IMPLICIT_CONST else 0
        if attr == form == 0:
            return out
        if attr in seen:
            raise cursor.fail(f"an abbreviation has the attribute {attr:#x} twice")
        if attr in INTERESTING:
            seen.add(attr)
        size = fixed_size(form, shape)
        is_plain = form not in (ADDR, SEC_OFFSET) and form not in ADDRX
        if size is None or attr in INTERESTING or not is_plain:
            out.append(Spec(attr, form, value))
        elif out and not out[-1].form:
            out[-1] = Spec(0, 0, out[-1].value + size)
        else:
            out.append(Spec(0, 0, size))
