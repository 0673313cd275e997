""".debug_line: which source line each instruction is of.

Programs are run to rows, rows go where their instructions went, and new
programs are written. Headers, with the names of files, stay.

Source: DWARF 5, section 6.2; DWARF 4, section 6.2.4, for the header before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from bpfpatch.errors import UnsupportedError

from .cursor import Cursor, Unit
from .lineprogram import encode_sequence
from .linerows import move_rows
from .move import CodeMove, Place
from .sections import ADDRESS_SIZE, DebugSection, Late

_STANDARD: Final = (0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1)
"""Operands of the operations 1 to 12."""

(_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _SET_COLUMN, _NEGATE_STMT) = range(1, 7)
(_BASIC_BLOCK, _CONST_ADD_PC, _FIXED_ADVANCE_PC, _PROLOGUE_END, _EPILOGUE_BEGIN) = range(7, 12)
_SET_ISA: Final = 12
_END_SEQUENCE, _SET_ADDRESS, _, _DISCRIMINATOR = range(1, 5)


class Head(NamedTuple):
    """What of a header the encoding of a program depends on."""

    min_insn: int
    is_stmt: bool
    line_base: int
    line_range: int
    opcode_base: int


class Row(NamedTuple):
    """A row of the table: the state for instructions from an address on.

    ``address`` is bytes from the start of the code section.
    """

    address: int
    file: int
    line: int
    column: int
    is_stmt: bool
    isa: int
    discriminator: int
    basic_block: bool
    prologue_end: bool
    epilogue_begin: bool

    def resumed(self) -> Row:
        """The same state, for instructions that do not begin anything."""
        return self._replace(
            is_stmt=False, basic_block=False, prologue_end=False, epilogue_begin=False
        )


@dataclass(slots=True)
class Sequence:
    """Rows of adjacent instructions, by address.

    Attributes:
        code: number of the code section that they are in.
        rows: in order.
        end: the byte after the last instruction.
        rel: symbol and type of the relocation of its first address.
    """

    code: int
    rows: list[Row]
    end: int
    rel: tuple[int, int]


def move_lines(section: DebugSection, move: CodeMove) -> None:
    """Write new programs.

    Raises:
        FormatError: it is cut off.
        UnsupportedError: it is of a form that is not known.
    """
    cursor = section.cursor()
    while cursor.pos < len(section.data):
        unit = cursor.unit()
        head = _read_head(section, cursor, unit)
        program = section.cursor(cursor.pos, unit.end)
        sequences = _Machine(section, program, head, move).run()
        _write(section, move, head, (cursor.pos, unit.end), sequences)
        late = Late(unit.length_pos, unit.offset_size, section, unit.end, unit.pos)
        section.late.append(late)
        cursor.pos = unit.end


def _read_head(section: DebugSection, cursor: Cursor, unit: Unit) -> Head:
    """Read a header, and stop where the program starts."""
    version = cursor.number(2)
    if not 2 <= version <= 5:
        raise UnsupportedError(f"{section.name} has a unit of version {version}")
    if version == 5 and (cursor.u8(), cursor.u8()) != (ADDRESS_SIZE, 0):
        raise UnsupportedError(f"{section.name} has addresses that are not of {ADDRESS_SIZE} bytes")
    length = cursor.number(unit.offset_size)
    start = cursor.pos + length
    if start > unit.end:
        raise cursor.fail("a header is longer than its unit")
    min_insn = cursor.u8()
    max_ops = cursor.u8() if version >= 4 else 1
    is_stmt = bool(cursor.u8())
    line_base, line_range, opcode_base = cursor.s8(), cursor.u8(), cursor.u8()
    operands = tuple(cursor.u8() for _ in range(max(opcode_base - 1, 0)))
    known = _STANDARD[: len(operands)]
    if max_ops > 1 or opcode_base < 10 or line_range == 0 or operands != known or min_insn == 0:
        raise UnsupportedError(f"{section.name} has a machine of its own at {unit.start:#x}")
    cursor.pos = start
    return Head(min_insn, is_stmt, line_base, line_range, opcode_base)


class _Machine:
    """Runs one program."""

    def __init__(self, section: DebugSection, cursor: Cursor, head: Head, move: CodeMove) -> None:
        self.section, self.cursor, self.head, self.move = section, cursor, head, move
        self.out: list[Sequence] = []
        self._reset()

    def _reset(self) -> None:
        self.rows: list[Row] = []
        self.place: Place | None = None
        self.rel = (0, 0)
        self.limit = 0
        self.address, self.file, self.line, self.column = 0, 1, 1, 0
        self.is_stmt, self.isa, self.discriminator = self.head.is_stmt, 0, 0
        self.block = self.prologue = self.epilogue = False

    def run(self) -> list[Sequence]:
        """All sequences."""
        cursor, head = self.cursor, self.head
        while cursor.pos < cursor.end:
            code = cursor.u8()
            if code >= head.opcode_base:
                advance, line = divmod(code - head.opcode_base, head.line_range)
                self.address += advance * head.min_insn
                self.line += line + head.line_base
                self._row()
            elif code:
                self._standard(code)
            else:
                self._extended()
        if self.rows:
            raise cursor.fail("a line program ends within a sequence")
        return self.out

    def _row(self) -> None:
        if self.place is None:
            raise UnsupportedError(f"{self.section.name} has a row at no address that is relocated")
        self._check_address()
        self.rows.append(
            Row(
                self.address,
                self.file,
                self.line,
                self.column,
                self.is_stmt,
                self.isa,
                self.discriminator,
                self.block,
                self.prologue,
                self.epilogue,
            )
        )
        self.block = self.prologue = self.epilogue = False
        self.discriminator = 0

    def _check_address(self) -> None:
        if self.rows and self.address < self.rows[-1].address:
            raise UnsupportedError(f"{self.section.name} has rows that go back")
        if self.address > self.limit:
            raise UnsupportedError(f"{self.section.name} has rows past the end of the code")

    def _standard(self, code: int) -> None:
        cursor, head = self.cursor, self.head
        if code == _COPY:
            self._row()
        elif code == _ADVANCE_PC:
            self.address += cursor.uleb() * head.min_insn
        elif code == _ADVANCE_LINE:
            self.line += cursor.sleb()
        elif code == _SET_FILE:
            self.file = cursor.uleb()
        elif code == _SET_COLUMN:
            self.column = cursor.uleb()
        elif code == _NEGATE_STMT:
            self.is_stmt = not self.is_stmt
        elif code == _BASIC_BLOCK:
            self.block = True
        elif code == _CONST_ADD_PC:
            self.address += (255 - head.opcode_base) // head.line_range * head.min_insn
        elif code == _FIXED_ADVANCE_PC:
            self.address += cursor.number(2)
        elif code == _PROLOGUE_END:
            self.prologue = True
        elif code == _EPILOGUE_BEGIN:
            self.epilogue = True
        else:
            assert code == _SET_ISA, "the header's check of opcode_base lets no other through"
            self.isa = cursor.uleb()

    def _extended(self) -> None:
        cursor, section = self.cursor, self.section
        at = cursor.pos
        length = cursor.uleb()
        end = cursor.pos + length
        code = cursor.u8() if length else 0
        if code == _END_SEQUENCE and length == 1:
            self._end()
        elif code == _SET_ADDRESS and length == 1 + ADDRESS_SIZE:
            self._set_address(cursor.skip(ADDRESS_SIZE))
        elif code == _DISCRIMINATOR:
            self.discriminator = cursor.uleb()
        else:
            raise UnsupportedError(f"{section.name} has the operation {code:#x} at {at:#x}")
        if cursor.pos != end:
            raise cursor.fail("an operation is of another length than it says", at)

    def _set_address(self, pos: int) -> None:
        place = self.section.address(pos)
        if place is None:
            raise UnsupportedError(f"{self.section.name} has an address at {pos:#x} not of code")
        if self.rows and self.place is not None and self.place.code != place.code:
            raise UnsupportedError(f"{self.section.name} has a sequence across sections")
        if not self.rows:
            self.rel = self.section.rels[pos]
        self.place, self.address = place, place.byte_off
        self.limit = int(self.move.old.n_bytes(place.code))

    def _end(self) -> None:
        if self.place is not None and self.rows:
            self._check_address()
            self.out.append(Sequence(self.place.code, self.rows, self.address, self.rel))
        self._reset()


def _write(
    section: DebugSection,
    move: CodeMove,
    head: Head,
    span: tuple[int, int],
    sequences: list[Sequence],
) -> None:
    out, rels = bytearray(), []
    for sequence in sequences:
        moved = move_rows(sequence, move)
        if not moved.rows:
            continue
        address = section.addend(moved.rows[0].address, sequence.rel)
        at, code = encode_sequence(moved, head, address, section.order)
        rels.append((len(out) + at, *sequence.rel))
        out += code
    section.replace_code(*span, bytes(out), rels)
