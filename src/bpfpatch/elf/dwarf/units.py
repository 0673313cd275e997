""".debug_info and .debug_types: the entries, one after another, and the addresses in them.

Entries form a tree, but nothing here depends on it: so they are read in one
go, whatever their depth.

Source: DWARF 5, section 7.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bpfpatch.errors import UnsupportedError

from ..leb import leb_in
from . import abbrevs as ab
from .abbrevs import Abbrev, Shape, read_abbrevs, skip_form
from .cursor import Cursor
from .expressions import read_expression
from .lists import Lists
from .move import CodeMove, Place
from .pool import AddressPool, Use, moved
from .sections import ADDRESS_SIZE, SPLIT, TOMBSTONES, DebugSection

_TAG_GNU_CALL_SITE: Final = 0x4109
_PLAIN_UNITS: Final = {1: 0, 3: 0, 2: 1}
"""Unit types of DWARF 5, and whether a type's signature and place follow."""
_SPLIT_UNITS: Final = (4, 5, 6)

_USES: Final = {ab.CALL_RETURN_PC: Use.RETURN, ab.CALL_PC: Use.CALL, ab.HIGH_PC: Use.END}


class Tables(NamedTuple):
    """What entries refer to."""

    abbrev: DebugSection
    pool: AddressPool
    old_ranges: Lists
    old_locations: Lists
    ranges: Lists
    locations: Lists
    move: CodeMove


class Value(NamedTuple):
    """An attribute's value, where it is."""

    form: int
    pos: int
    end: int
    const: int


@dataclass(slots=True)
class UnitOwner:
    """A unit, as its lists and expressions see it."""

    tables: Tables
    section: DebugSection
    shape: Shape
    base: Place | None = None
    addr_base: int = 8
    n_ranges: int = 0
    n_locations: int = 0
    placeless: set[bytes] = field(default_factory=set)
    """Expressions that name no place in code: most are the same few."""

    def index(self, index: int, use: Use) -> Place | None:
        """The place of an address in .debug_addr."""
        return self.tables.pool.use(self.addr_base, index, use)

    def is_dead(self, index: int) -> bool:
        """Whether an address in .debug_addr is a linker's tombstone."""
        return self.tables.pool.is_dead(self.addr_base, index)

    def expression(self, section: DebugSection, pos: int, end: int) -> None:
        """Go through a location expression."""
        content = section.data[pos:end]
        if content in self.placeless and pos + len(content) == end:
            return
        taker = _Taker(self, section)
        read_expression(section.cursor(pos, end), self.shape.offset_size, taker)
        if not taker.has_taken:
            self.placeless.add(content)


@dataclass(slots=True)
class _Taker:
    """Takes an expression's addresses."""

    owner: UnitOwner
    section: DebugSection
    has_taken: bool = False

    def field(self, pos: int) -> None:
        """Move an address in place."""
        self.has_taken = True
        place = self.section.address(pos)
        if place is not None:
            self.section.put_address(pos, self.owner.tables.move.start(place))

    def indexed(self, index: int) -> None:
        """Note the use of an address in .debug_addr."""
        self.has_taken = True
        self.owner.index(index, Use.START)


@dataclass(slots=True)
class _Reader:
    """Reads the units of one section."""

    section: DebugSection
    tables: Tables
    known: dict[tuple[int, Shape], dict[int, Abbrev]] = field(default_factory=dict)
    n_bytes: int = 0

    def abbrevs(self, pos: int, shape: Shape) -> dict[int, Abbrev]:
        """The table at a place, read once; as many that overlap would take time without end."""
        key = pos, shape
        if key not in self.known:
            cursor = self.tables.abbrev.cursor(pos)
            self.known[key] = read_abbrevs(cursor, shape)
            self.n_bytes += cursor.pos - pos
            if self.n_bytes > 4 * len(cursor.data):
                raise UnsupportedError(f"{cursor.name} has tables that overlap")
        return self.known[key]


def move_units(section: DebugSection, tables: Tables) -> None:
    """Put new addresses in all entries, and in the lists that they refer to.

    Raises:
        FormatError: it is cut off.
        UnsupportedError: it is of a form that is not known.
    """
    reader = _Reader(section, tables)
    cursor = section.cursor()
    while cursor.pos < len(section.data):
        unit = cursor.unit()
        _read_unit(reader, section.cursor(cursor.pos, unit.end), unit.offset_size)
        cursor.pos = unit.end


def _read_unit(reader: _Reader, cursor: Cursor, offset_size: int) -> None:
    section = reader.section
    version, kind = cursor.number(2), 1
    if not 2 <= version <= 5:
        raise UnsupportedError(f"{section.name} has a unit of version {version}")
    if version == 5:
        kind, size = cursor.u8(), cursor.u8()
        abbrev_at = cursor.skip(offset_size)
    else:
        abbrev_at = cursor.skip(offset_size)
        size = cursor.u8()
    if kind in _SPLIT_UNITS:
        raise UnsupportedError(f"it is {SPLIT}")
    if kind not in _PLAIN_UNITS or size != ADDRESS_SIZE:
        raise UnsupportedError(
            f"{section.name} has a unit of type {kind} with addresses of {size} bytes"
        )
    if _PLAIN_UNITS[kind] or section.name == ".debug_types":
        cursor.skip(8 + offset_size)
    shape = Shape(version, offset_size)
    abbrevs = reader.abbrevs(section.offset(abbrev_at, offset_size), shape)
    _read_entries(cursor, abbrevs, UnitOwner(reader.tables, section, shape))


def _read_entries(cursor: Cursor, abbrevs: dict[int, Abbrev], owner: UnitOwner) -> None:
    shape, is_first = owner.shape, True
    while cursor.pos < cursor.end:
        at = cursor.pos
        number = cursor.uleb()
        if number == 0:
            continue
        abbrev = abbrevs.get(number)
        if abbrev is None:
            raise cursor.fail(f"abbreviation {number} is not there", at)
        values: list[tuple[int, Value]] = []
        for attr, form, const in abbrev.specs:
            if not form:
                cursor.skip(const)
                continue
            actual = form
            if form == ab.INDIRECT:
                actual = cursor.uleb()
                if actual in (ab.INDIRECT, ab.IMPLICIT_CONST):
                    raise UnsupportedError(f"{cursor.name} has an indirect form {actual:#x}")
            start = cursor.pos
            skip_form(cursor, actual, shape)
            if _is_interesting(attr, actual):
                values.append((attr, Value(actual, start, cursor.pos, const)))
        if is_first:
            _take_bases(owner, dict(values))
            is_first = False
        if values:
            _Entry(owner, abbrev.tag, values).move()


def _is_interesting(attr: int, form: int) -> bool:
    return attr in ab.INTERESTING or form in (ab.ADDR, ab.EXPRLOC) or form in ab.ADDRX


def _take_bases(owner: UnitOwner, values: dict[int, Value]) -> None:
    """What indices and offsets of a unit count from."""
    section, tables = owner.section, owner.tables
    size = owner.shape.offset_size
    if owner.shape.version == 5:
        owner.addr_base = 16 if size == 8 else 8
    if ab.ADDR_BASE in values:
        owner.addr_base = section.offset(values[ab.ADDR_BASE].pos, size)
    low = values.get(ab.LOW_PC)
    if low is not None:
        owner.base = _Entry(owner, 0, []).place(low, Use.START)
    default = 20 if size == 8 else 12
    if ab.RNGLISTS_BASE in values:
        base = section.offset(values[ab.RNGLISTS_BASE].pos, size)
        owner.n_ranges = tables.ranges.table(base, size, owner)
    elif owner.shape.version == 5 and _form(values, ab.RANGES) == ab.RNGLISTX:
        owner.n_ranges = tables.ranges.table(default, size, owner)
    if ab.LOCLISTS_BASE in values:
        base = section.offset(values[ab.LOCLISTS_BASE].pos, size)
        owner.n_locations = tables.locations.table(base, size, owner)


def _form(values: dict[int, Value], attr: int) -> int:
    return values[attr].form if attr in values else 0


class _Entry:
    """One entry whose attributes have to do with code."""

    def __init__(self, owner: UnitOwner, tag: int, values: list[tuple[int, Value]]) -> None:
        self.owner, self.tag, self.values = owner, tag, values
        self.section, self.move_of = owner.section, owner.tables.move

    def place(self, value: Value, use: Use) -> Place | None:
        """The old place that an address stands for; None where it is not in code."""
        if value.form == ab.ADDR:
            return self.section.address(value.pos)
        return self.owner.index(self._index(value), use)

    def _index(self, value: Value) -> int:
        cursor = self.section.cursor(value.pos, value.end)
        width = ab.ADDRX[value.form]
        return cursor.number(width) if width else cursor.uleb()

    def _is_address(self, value: Value) -> bool:
        return value.form == ab.ADDR or value.form in ab.ADDRX

    def move(self) -> None:
        """Put everything right that depends on where code is."""
        low: Value | None = None
        for attr, value in self.values:
            if attr == ab.LOW_PC and self._is_address(value):
                low = value
        for attr, value in self.values:
            if attr == ab.HIGH_PC and low is not None:
                self._high(low, value)
            elif self._is_address(value):
                self._address(attr, value)
            elif attr == ab.ENTRY_PC:
                self._entry(low, value)
            elif attr in ab.INTERESTING or value.form == ab.EXPRLOC:
                self._other(attr, value)

    def _address(self, attr: int, value: Value) -> None:
        use = _USES.get(attr, Use.START)
        if attr == ab.LOW_PC and self.tag == _TAG_GNU_CALL_SITE:
            use = Use.RETURN
        place = self.place(value, use)
        if place is not None and value.form == ab.ADDR:
            self.section.put_address(value.pos, moved(self.move_of, place, use))

    def _high(self, low: Value, high: Value) -> None:
        if self._is_address(high):
            first, last = self.place(low, Use.START), self.place(high, Use.END)
            if first is None or last is None or high.form != ab.ADDR:
                return
            if first.code != last.code:
                raise UnsupportedError(f"{self.section.name} has a range across sections")
            end = max(self.move_of.start(first), self.move_of.end(last))
            self.section.put_address(high.pos, end)
            return
        place, length = self.place(low, Use.START), self._constant(high)
        if place is None:
            if length and not self._is_dead(low):
                raise self.section.cursor(low.pos).fail(
                    "a range has no address that a relocation would make"
                )
            return
        start = self.move_of.start(place)
        end = self.move_of.end(Place(place.code, place.byte_off + length))
        self._put_constant(high, length, max(end - start, 0))

    def _is_dead(self, low: Value) -> bool:
        if low.form in ab.ADDRX:
            return self.owner.is_dead(self._index(low))
        value = self.section.offset(low.pos, ADDRESS_SIZE)
        return self.section.is_constant(low.pos) and value in TOMBSTONES

    def _entry(self, low: Value | None, value: Value) -> None:
        """An entry point as a distance from the entry's own start."""
        offset = self._constant(value)
        place = self.owner.base if low is None else self.place(low, Use.START)
        if offset == 0:
            return
        if place is None:
            raise UnsupportedError(f"{self.section.name} has an entry point of no range")
        to = self.move_of.start(Place(place.code, place.byte_off + offset))
        self._put_constant(value, offset, to - self.move_of.start(place))

    def _constant(self, value: Value) -> int:
        if value.form == ab.IMPLICIT_CONST:
            return value.const
        cursor = self.section.cursor(value.pos, value.end)
        if value.form in ab.DATA:
            return cursor.number(ab.DATA[value.form])
        if value.form == ab.UDATA:
            return cursor.uleb()
        if value.form == ab.SDATA:
            return cursor.sleb()
        raise UnsupportedError(
            f"{self.section.name} has an end of form {value.form:#x} at {value.pos:#x}"
        )

    def _put_constant(self, value: Value, old: int, new: int) -> None:
        if old == new:
            return
        n_bytes = value.end - value.pos
        if value.form in ab.DATA and new < 1 << (8 * n_bytes):
            self.section.put(value.pos, new, n_bytes)
            return
        is_leb = value.form in (ab.UDATA, ab.SDATA)
        leb = leb_in(new, n_bytes, signed=value.form == ab.SDATA) if is_leb else None
        if leb is None:
            raise UnsupportedError(
                f"{self.section.name} has a range at {value.pos:#x} that is now {new} bytes, for "
                f"which form {value.form:#x} has no room"
            )
        self.section.replace(value.pos, value.end, leb)

    def _other(self, attr: int, value: Value) -> None:
        owner, form = self.owner, value.form
        is_offset = form == ab.SEC_OFFSET or (
            owner.shape.version < 4 and ab.DATA.get(form) == owner.shape.offset_size
        )
        if form == ab.EXPRLOC or (form in ab.BLOCKS and attr in ab.LOCATIONS):
            cursor = self.section.cursor(value.pos, value.end)
            width = ab.BLOCKS.get(form, 0)
            _ = cursor.number(width) if width else cursor.uleb()
            owner.expression(self.section, cursor.pos, value.end)
        elif form in (ab.LOCLISTX, ab.RNGLISTX):
            self._check_index(value)
        elif is_offset and attr in (ab.RANGES, ab.START_SCOPE):
            self._list(owner.tables.old_ranges, owner.tables.ranges, value)
        elif is_offset and attr in ab.LOCATIONS:
            self._list(owner.tables.old_locations, owner.tables.locations, value)

    def _check_index(self, value: Value) -> None:
        index = self.section.cursor(value.pos, value.end).uleb()
        owner = self.owner
        count = owner.n_locations if value.form == ab.LOCLISTX else owner.n_ranges
        if index >= count:
            raise self.section.cursor(value.pos).fail(f"list {index} of {count} is not there")

    def _list(self, old: Lists, new: Lists, value: Value) -> None:
        pos = self.section.offset(value.pos, self.owner.shape.offset_size)
        if self.owner.shape.version < 5:
            old.old_list(pos, self.owner)
        else:
            new.new_list(pos, self.owner)
