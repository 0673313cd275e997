"""Range and location lists.

An entry stays an entry, however short its range gets: one that is empty says
nothing, and what counts entries (GNU's location views) stays right.

Source: DWARF 4, sections 2.17.3 and 2.6.2; DWARF 5, sections 7.25, 7.28 and
7.29, tables 7.30 and 7.10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from bpfpatch.errors import UnsupportedError

from ..leb import uleb_bytes
from .cursor import Cursor
from .move import CodeMove, Place
from .pool import Use
from .sections import ADDRESS_SIZE, TOMBSTONE, TOMBSTONES, DebugSection, Late

_END, _BASEX, _STARTX_ENDX, _STARTX_LENGTH, _OFFSETS = range(5)
_DEFAULT, _BASE, _START_END, _START_LENGTH, _VIEWS = range(5, 10)

_RANGE_KINDS: Final = {
    **{kind: kind for kind in range(5)},
    5: _BASE,
    6: _START_END,
    7: _START_LENGTH,
}
_LOCATION_KINDS: Final = {kind: kind for kind in range(10)}

_ELSEWHERE: Final = ADDRESS_SIZE
"""An empty range at zero would end a list of DWARF 4; one anywhere else does not."""


class Owner(Protocol):
    """The unit that a list belongs to."""

    @property
    def base(self) -> Place | None:
        """What offsets count from, unless the list says another."""

    def index(self, index: int, use: Use) -> Place | None:
        """The place of an address in .debug_addr."""

    def is_dead(self, index: int) -> bool:
        """Whether an address in .debug_addr is a linker's tombstone."""

    def expression(self, section: DebugSection, pos: int, end: int) -> None:
        """Go through a location expression."""


@dataclass(slots=True)
class Lists:
    """The lists of one section, each of which is dealt with once.

    Attributes:
        section: the section, if the object has it.
        move: of the code.
        is_loc: whether entries have locations.
        bases: of the lists dealt with, by where they start.
        n_bytes: that these have.
    """

    section: DebugSection | None
    move: CodeMove
    is_loc: bool
    bases: dict[int, Place | None] = field(default_factory=dict)
    n_bytes: int = 0

    def _required(self) -> DebugSection:
        if self.section is None:
            what = "locations" if self.is_loc else "ranges"
            raise UnsupportedError(f"DWARF refers to lists of {what} that are not there")
        return self.section

    def _is_done(self, pos: int, owner: Owner) -> bool:
        if pos not in self.bases:
            return False
        if self.bases[pos] != owner.base:
            raise UnsupportedError(
                f"{self._required().name} has a list at {pos:#x} for units at two addresses"
            )
        return True

    def _done(self, start: int, end: int, owner: Owner) -> None:
        """Note a list; those that overlap without end would take time without end."""
        self.bases[start] = owner.base
        self.n_bytes += end - start
        if self.n_bytes > 2 * len(self._required().data):
            raise UnsupportedError(f"{self._required().name} has lists that overlap")

    # ---- DWARF 4 and before ---------------------------------------------------------------

    def old_list(self, pos: int, owner: Owner) -> None:
        """Deal with a list of .debug_ranges or .debug_loc."""
        if self._is_done(pos, owner):
            return
        section = self._required()
        cursor, base = section.cursor(pos), owner.base
        while True:
            at = cursor.skip(2 * ADDRESS_SIZE)
            pair = section.offset(at, ADDRESS_SIZE), section.offset(at + 8, ADDRESS_SIZE)
            is_bare = section.is_constant(at) and section.is_constant(at + 8)
            if pair == (0, 0) and is_bare:
                break
            if pair[0] == TOMBSTONE and section.is_constant(at):
                base = self._field(at + 8, Use.START, TOMBSTONE)
                continue
            self._old_pair(at, pair, base, is_bare=is_bare)
            if self.is_loc:
                end = cursor.pos + 2 + cursor.number(2)
                owner.expression(section, cursor.skip(end - cursor.pos), end)
        self._done(pos, cursor.pos, owner)

    def _field(self, pos: int, use: Use, tombstone: int) -> Place | None:
        section = self._required()
        place = section.address(pos)
        if place is not None:
            new = self.move.start(place) if use is Use.START else self.move.end(place)
            section.put_address(pos, new, tombstone)
        return place

    def _old_pair(
        self, at: int, pair: tuple[int, int], base: Place | None, *, is_bare: bool
    ) -> None:
        section = self._required()
        if is_bare:
            new = self._offsets(pair, base)
            if new == (0, 0):
                new = _ELSEWHERE, _ELSEWHERE
            section.put(at, new[0], ADDRESS_SIZE)
            section.put(at + 8, new[1], ADDRESS_SIZE)
            return
        places = section.address(at), section.address(at + 8)
        if places == (None, None):
            return
        first, last = self._ends(*places)
        if first == last == 0:
            first = last = _ELSEWHERE
        section.put_address(at, first, TOMBSTONE - 1)
        section.put_address(at + 8, last, TOMBSTONE - 1)

    def _ends(self, first: Place | None, last: Place | None) -> tuple[int, int]:
        if first is None or last is None or first.code != last.code:
            raise UnsupportedError(f"{self._required().name} has a range across sections")
        start = self.move.start(first)
        return start, max(start, self.move.end(last))

    def _offsets(self, pair: tuple[int, int], base: Place | None) -> tuple[int, int]:
        """New distances from what was and will be the base."""
        if pair[0] == pair[1]:
            return 0, 0
        if pair[0] in TOMBSTONES:
            return pair
        if base is None:
            raise UnsupportedError(
                f"{self._required().name} has the range {pair[0]:#x} to {pair[1]:#x}, and no "
                "relocation says of what"
            )
        start, end = self._ends(
            Place(base.code, base.byte_off + pair[0]), Place(base.code, base.byte_off + pair[1])
        )
        new_base = self.move.start(base)
        return start - new_base, end - new_base

    # ---- DWARF 5 --------------------------------------------------------------------------

    def table(self, base: int, offset_size: int, owner: Owner) -> int:
        """Deal with all lists of a table, and return how many there are.

        Args:
            base: where its offsets start, just after the header.
            offset_size: of the unit that uses it.
            owner: that unit.
        """
        section = self._required()
        start = base - (20 if offset_size == 8 else 12)
        if start < 0:
            raise UnsupportedError(f"{section.name} has no table at {base:#x}")
        head = section.cursor(start)
        unit = head.unit()
        self._check_header(head)
        count = head.number(4)
        if head.pos != base or count * offset_size > unit.end - base:
            raise head.fail("a table does not fit in its unit")
        for index in range(count):
            at = base + index * offset_size
            to = base + section.offset(at, offset_size)
            section.late.append(Late(at, offset_size, section, to, base))
            self.new_list(to, owner)
        return count

    def _check_header(self, head: Cursor) -> None:
        version, size, segment = head.number(2), head.u8(), head.u8()
        if (version, size, segment) != (5, ADDRESS_SIZE, 0):
            raise UnsupportedError(
                f"{head.name} has version {version}, addresses of {size} bytes and segments of "
                f"{segment}"
            )

    def lengths(self) -> None:
        """Have the lengths of all units put right."""
        if self.section is None:
            return
        cursor = self.section.cursor()
        while cursor.pos < len(self.section.data):
            unit = cursor.unit()
            self._check_header(cursor)
            late = Late(unit.length_pos, unit.offset_size, self.section, unit.end, unit.pos)
            self.section.late.append(late)
            cursor.pos = unit.end

    def new_list(self, pos: int, owner: Owner) -> None:
        """Deal with a list of .debug_rnglists or .debug_loclists."""
        if self._is_done(pos, owner):
            return
        section = self._required()
        cursor = section.cursor(pos)
        kinds = _LOCATION_KINDS if self.is_loc else _RANGE_KINDS
        state = _State(self, cursor, owner, owner.base)
        while True:
            code = cursor.u8()
            kind = kinds.get(code)
            if kind is None:
                raise UnsupportedError(f"{section.name} has an entry of kind {code:#x}")
            if kind == _END:
                break
            _READERS[kind](state)
            if self.is_loc and kind not in (_BASEX, _BASE, _VIEWS):
                end = cursor.uleb() + cursor.pos
                owner.expression(section, cursor.skip(end - cursor.pos), end)
        self._done(pos, cursor.pos, owner)


@dataclass(slots=True)
class _State:
    """One list being read."""

    lists: Lists
    cursor: Cursor
    owner: Owner
    base: Place | None

    def put(self, start: int, *numbers: int) -> None:
        """Put LEB128 numbers in place of what was read since ``start``."""
        new = b"".join(map(uleb_bytes, numbers))
        self.lists._required().replace(start, self.cursor.pos, new)

    def length(self, start: int, place: Place | None, length: int, *, is_dead: bool) -> None:
        """Put the new length of a range in place of the old."""
        if place is None:
            if length and not is_dead:
                raise self.cursor.fail("a range has no address that a relocation would make", start)
            return
        first, last = self.lists._ends(place, Place(place.code, place.byte_off + length))
        self.put(start, last - first)


def _basex(state: _State) -> None:
    state.base = state.owner.index(state.cursor.uleb(), Use.START)


def _startx_endx(state: _State) -> None:
    state.owner.index(state.cursor.uleb(), Use.START)
    state.owner.index(state.cursor.uleb(), Use.END)


def _startx_length(state: _State) -> None:
    index = state.cursor.uleb()
    place, start = state.owner.index(index, Use.START), state.cursor.pos
    state.length(start, place, state.cursor.uleb(), is_dead=state.owner.is_dead(index))


def _offset_pair(state: _State) -> None:
    start = state.cursor.pos
    pair = state.cursor.uleb(), state.cursor.uleb()
    state.put(start, *state.lists._offsets(pair, state.base))


def _default(state: _State) -> None:
    """Nothing but a location."""


def _base(state: _State) -> None:
    at = state.cursor.skip(ADDRESS_SIZE)
    state.base = state.lists._field(at, Use.START, TOMBSTONE)


def _start_end(state: _State) -> None:
    at = state.cursor.skip(2 * ADDRESS_SIZE)
    section = state.lists._required()
    places = section.address(at), section.address(at + 8)
    if places == (None, None):
        return
    first, last = state.lists._ends(*places)
    section.put_address(at, first)
    section.put_address(at + 8, last)


def _start_length(state: _State) -> None:
    at = state.cursor.skip(ADDRESS_SIZE)
    section, start = state.lists._required(), state.cursor.pos
    is_dead = section.offset(at, ADDRESS_SIZE) in TOMBSTONES
    place = state.lists._field(at, Use.START, TOMBSTONE)
    state.length(start, place, state.cursor.uleb(), is_dead=is_dead)


def _views(state: _State) -> None:
    state.cursor.uleb()
    state.cursor.uleb()


_READERS: Final[dict[int, Callable[[_State], None]]] = {
    _BASEX: _basex,
    _STARTX_ENDX: _startx_endx,
    _STARTX_LENGTH: _startx_length,
    _OFFSETS: _offset_pair,
    _DEFAULT: _default,
    _BASE: _base,
    _START_END: _start_end,
    _START_LENGTH: _start_length,
    _VIEWS: _views,
}
