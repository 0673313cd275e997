"""Debug sections in the making: their bytes, relocations, and what is to change.

Nothing is written before all is known: a change is a run of old bytes and what
stands there instead. So a place of the old section has one of the new, and
offsets from anywhere to there are put right at the end.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_left, bisect_right
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import UnsupportedError

from ..addresses import ABSOLUTE_TYPES, WIDTHS
from ..raw import REL, Buffer, ByteOrder, RawElf
from ..symtab import STT_SECTION, SymbolTable, is_defined
from .cursor import Cursor
from .move import CodeMove, Place

ADDRESS_SIZE: Final = 8
TOMBSTONE: Final = (1 << 64) - 1
"""What stands for an address whose symbol is gone, as linkers write it: DWARF 6, section 3.1."""
TOMBSTONES: Final = (TOMBSTONE, TOMBSTONE - 1)

SHF_COMPRESSED: Final = 0x800
_CHDR_SIZE: Final = 24
_ZLIB: Final = 1
_MAX_INFLATION: Final = 64
"""Of zlib's thousandfold: what debug sections never come near."""

SPLIT: Final = "split DWARF (-gsplit-dwarf), the other half of which no relocation can put right"


class Names(NamedTuple):
    """What relocations of debug sections may name.

    Of each symbol, as lists, which are faster to look one up in.

    Attributes:
        symbols: the symbols, with their old values.
        old_value: the old values.
        value: the new values.
        is_gone: which leave the object.
        is_section: which stand for a section.
        code: number of the code section that each is in, or -1.
    """

    symbols: SymbolTable
    old_value: list[int]
    value: list[int]
    is_gone: list[bool]
    is_section: list[bool]
    code: list[int]

    @classmethod
    def of(
        cls,
        symbols: SymbolTable,
        value: NDArray[Any],
        is_gone: NDArray[np.bool_],
        code: NDArray[np.int64],
    ) -> Self:
        """What is to be known of symbols, from (n,) of each."""
        return cls(
            symbols,
            symbols.rows["value"].tolist(),
            value.tolist(),
            is_gone.tolist(),
            (symbols.type == STT_SECTION).tolist(),
            code.tolist(),
        )


class Late(NamedTuple):
    """A field that holds a distance within a section, known when that section is."""

    pos: int
    width: int
    target: DebugSection
    to: int
    base: int


class DebugSection:
    """One debug section.

    Attributes:
        index: its number.
        name: its name.
        data: its bytes, inflated.
        order: of the file.
        late: fields to fill in the end.
        visited: positions of relocations that have been dealt with.
    """

    def __init__(
        self, raw: RawElf, index: int, rows: NDArray[Any], names: Names, move: CodeMove
    ) -> None:
        self.index, self.name = index, raw.names[index]
        self.order: ByteOrder = raw.byteorder
        self._content = raw.contents[index]
        self._base = raw.byte_off(index)
        self.is_compressed = bool(int(raw.shdrs["flags"][index]) & SHF_COMPRESSED)
        self.data = self._inflated() if self.is_compressed else bytes(self._content)
        self.rows, self._names, self._move = rows, names, move
        self.late: list[Late] = []
        self.visited: set[int] = set()
        self._edits: dict[int, tuple[int, bytes]] = {}
        self._dead: set[int] = set()
        self._added: list[tuple[int, int, int, int]] = []
        self._rels: dict[int, tuple[int, int]] | None = None
        self._rel_places: list[int] | None = None
        self._plan: tuple[list[int], list[int], list[int]] | None = None

    def cursor(self, pos: int = 0, end: int = -1) -> Cursor:
        """A reader of the old bytes."""
        if pos > len(self.data):
            raise self.cursor().fail("an offset points past the end of the section", pos)
        return Cursor(self.data, self.order, self.name, self._base, pos, end)

    def _inflated(self) -> bytes:
        mark = "<" if self.order == "little" else ">"
        if len(self._content) < _CHDR_SIZE:
            raise UnsupportedError(f"{self.name} is too short to be compressed")
        kind, _, size, _ = struct.unpack(f"{mark}IIQQ", bytes(self._content[:_CHDR_SIZE]))
        if kind != _ZLIB or size > _MAX_INFLATION * len(self._content):
            raise UnsupportedError(f"{self.name} is compressed by method {kind} to {size} bytes")
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(self._content[_CHDR_SIZE:], size + 1)
        except zlib.error as error:
            raise UnsupportedError(f"{self.name} cannot be inflated: {error}") from error
        if len(data) != size:
            raise UnsupportedError(f"{self.name} is not of the size that it says")
        return data

    # ---- relocations and addresses --------------------------------------------------------

    @property
    def rels(self) -> dict[int, tuple[int, int]]:
        """(symbol, type) by position."""
        if self._rels is None:
            at, sym = self.rows["byte_off"].tolist(), self.rows["sym"].tolist()
            kinds = zip(sym, self.rows["type"].tolist(), strict=True)
            self._rels = dict(zip(at, kinds, strict=True))
            if len(self._rels) != len(at):
                raise UnsupportedError(f"{self.name} has two relocations on one field")
        return self._rels

    def is_constant(self, pos: int) -> bool:
        """Whether no relocation makes an address of what stands there."""
        return pos not in self.rels

    def address(self, pos: int) -> Place | None:
        """The address in code at a position, or None where it stands for something else.

        Raises:
            UnsupportedError: it may stand for code, but no relocation says where.
        """
        value = self.offset(pos, ADDRESS_SIZE)
        rel = self.rels.get(pos)
        if rel is None:
            return None
        sym, kind = rel
        code = self._names.code[sym]
        if code < 0:
            return None
        self._check_width(pos, kind, ADDRESS_SIZE)
        if not self._is_whole(pos, sym, kind):
            value = (value + self._names.old_value[sym]) & TOMBSTONE
        return Place(code, value)

    def _is_whole(self, pos: int, sym: int, kind: int) -> bool:
        """Whether a field holds all of an address, and not what is added to a symbol."""
        is_named = not self._names.is_section[sym]
        return is_named and kind in ABSOLUTE_TYPES and self.offset(pos, ADDRESS_SIZE) != 0

    def put_address(self, pos: int, new: int, tombstone: int = TOMBSTONE) -> None:
        """Write a new address, as bytes from the start of the section that it is in."""
        sym, kind = self.rels[pos]
        self.visited.add(pos)
        if self._names.is_gone[sym]:
            self._dead.add(pos)
            self.put(pos, tombstone, ADDRESS_SIZE)
            return
        if not self._is_whole(pos, sym, kind):
            new -= self._names.value[sym]
        self.put(pos, new & TOMBSTONE, ADDRESS_SIZE)

    def addend(self, new: int, rel: tuple[int, int]) -> int:
        """What stands in place for an address, in a field that a relocation is put on anew."""
        sym, kind = rel
        if self._names.is_gone[sym]:
            raise UnsupportedError(
                f"{self.name} names code that is there by {self._names.symbols.name(sym)}, which "
                "is gone"
            )
        if not self._names.is_section[sym] and kind in ABSOLUTE_TYPES:
            return new
        return (new - self._names.value[sym]) & TOMBSTONE

    def width(self, row: int) -> int:
        """Bytes of the field of a relocation, by its row."""
        kind = int(self.rows["type"][row])
        if kind not in WIDTHS:
            raise UnsupportedError(f"{self.name} has a relocation of type {kind}")
        return WIDTHS[kind]

    def _check_width(self, pos: int, kind: int, width: int) -> None:
        if WIDTHS.get(kind) != width:
            raise UnsupportedError(
                f"{self.name} has a relocation of type {kind} against code at {pos:#x}, on a "
                f"field of {width} bytes"
            )

    def offset(self, pos: int, width: int) -> int:
        """An offset into another section; relocations are against that section's start."""
        if pos + width <= len(self.data):
            return int.from_bytes(self.data[pos : pos + width], self.order)
        return self.cursor(pos).number(width)

    def unvisited(self) -> None:
        """Raise if a relocation against code is in no field that was understood."""
        if not len(self.rows):
            return
        is_code = np.array(self._names.code)[self.rows["sym"]] >= 0
        at = self.rows["byte_off"][is_code].tolist()
        left = set(at) - self.visited
        if left:
            raise UnsupportedError(
                f"{self.name} has an address of code at {min(left):#x}, in no field that is known"
            )

    # ---- changes --------------------------------------------------------------------------

    def put(self, pos: int, value: int, width: int) -> None:
        """Put another number of the same width."""
        self.replace(pos, pos + width, value.to_bytes(width, self.order))

    def replace(self, start: int, end: int, new: bytes) -> None:
        """Put other bytes in place of a run of old ones."""
        known = self._edits.get(start)
        if known is not None and known != (end, new):
            raise UnsupportedError(f"{self.name} says two things with its bytes at {start:#x}")
        self._edits[start] = end, new

    def replace_code(
        self, start: int, end: int, new: bytes, rels: list[tuple[int, int, int]]
    ) -> None:
        """Replace a run together with its relocations.

        Args:
            start: of the run.
            end: of the run.
            new: what stands there instead.
            rels: (byte of it, symbol, type) of its relocations.
        """
        self.replace(start, end, new)
        if self._rel_places is None:
            self._rel_places = sorted(self.rels)
        places = self._rel_places
        gone = set(places[bisect_left(places, start) : bisect_left(places, end)])
        self._dead |= gone
        self.visited |= gone
        self._added += [(start, at, sym, kind) for at, sym, kind in rels]

    def new_pos(self, pos: int) -> int:
        """Where a place went; within a run that was replaced by another length, to its start."""
        if self._plan is None:
            self._plan = self._planned()
        starts, ends, shifts = self._plan
        index = bisect_right(starts, pos) - 1
        if index < 0:
            return pos
        if pos < ends[index] and shifts[index + 1] != shifts[index]:
            return starts[index] + shifts[index]
        return pos + (shifts[index] if pos < ends[index] else shifts[index + 1])

    def _planned(self) -> tuple[list[int], list[int], list[int]]:
        starts = sorted(self._edits)
        ends, shifts = [], [0]
        last = 0
        for start in starts:
            end, new = self._edits[start]
            if start < last:
                raise UnsupportedError(f"{self.name} uses its bytes at {start:#x} twice")
            last = end
            ends.append(end)
            shifts.append(shifts[-1] + len(new) - (end - start))
        return starts, ends, shifts

    @property
    def is_changed(self) -> bool:
        """Whether anything in it changes."""
        return any(self.data[at:end] != new for at, (end, new) in self._edits.items())

    @property
    def is_resized(self) -> bool:
        """Whether places in it move."""
        if self._plan is None:
            self._plan = self._planned()
        return any(self._plan[2])

    def finish(self) -> None:
        """Fill in the fields that waited; places are known now."""
        places = self._plan if self._plan is not None else self._planned()
        for pos, width, target, to, base in self.late:
            value = target.new_pos(to) - target.new_pos(base)
            if value >> (8 * width):
                raise UnsupportedError(f"{self.name}: {value:#x} does not fit at {pos:#x}")
            self.put(pos, value, width)
        self._plan = self._planned()
        assert self._plan[2][-1] == places[2][-1], "late fields keep their width"

    def to_bytes(self) -> Buffer:
        """The new content, compressed again if the old was."""
        if not self._edits:
            return self._content
        out, last = bytearray(), 0
        for start in sorted(self._edits):
            end, new = self._edits[start]
            out += self.data[last:start]
            out += new
            last = end
        out += self.data[last:]
        if not self.is_compressed:
            return bytes(out)
        mark = "<" if self.order == "little" else ">"
        head = bytearray(self._content[:_CHDR_SIZE])
        struct.pack_into(f"{mark}Q", head, 8, len(out))
        return bytes(head) + zlib.compress(bytes(out))

    def new_rows(self) -> NDArray[Any]:
        """(n,) `REL` of the new content, by position."""
        if not self._edits:
            return self.rows
        kept = self.rows
        if self._dead:
            kept = kept[~np.isin(kept["byte_off"], np.array(sorted(self._dead), np.uint64))]
        kept = kept.copy()
        if self.is_resized:
            kept["byte_off"] = [self._moved(pos) for pos in kept["byte_off"].tolist()]
        added = np.zeros(len(self._added), REL["little"])
        for row, (start, at, sym, kind) in enumerate(self._added):
            added[row] = self.new_pos(start) + at, kind, sym
        rows = np.concatenate([kept, added])
        return rows[np.argsort(rows["byte_off"], kind="stable")]

    def _moved(self, pos: int) -> int:
        new = self.new_pos(pos)
        if self.new_pos(pos + 1) == new:
            raise UnsupportedError(f"{self.name} has a relocation at {pos:#x}, in rewritten bytes")
        return new


def code_of_symbol(symbols: SymbolTable, code_index: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) number of the code section that each symbol is in, or -1."""
    rows = symbols.rows
    return np.where(is_defined(rows), code_index[np.where(is_defined(rows), rows["shndx"], 0)], -1)
