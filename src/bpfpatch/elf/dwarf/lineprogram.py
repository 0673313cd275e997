"""Write a sequence of rows as a line program, in the very operations that LLVM takes.

Rows that are the same as before thus make the same bytes as before.

Source: DWARF 5, sections 6.2.5.1 to 6.2.5.3; llvm 19, MCDwarfLineAddr::encode() and
MCDwarfLineTable::emitOne().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpfpatch.errors import UnsupportedError

from ..leb import sleb_bytes, uleb_bytes
from ..raw import ByteOrder

if TYPE_CHECKING:
    from .lines import Head, Row, Sequence

(_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _SET_COLUMN, _NEGATE_STMT) = range(1, 7)
_BASIC_BLOCK, _CONST_ADD_PC = 7, 8
_PROLOGUE_END, _EPILOGUE_BEGIN, _SET_ISA = 10, 11, 12
_END_SEQUENCE = b"\0\x01\x01"


def encode_sequence(
    sequence: Sequence, head: Head, addend: int, order: ByteOrder
) -> tuple[int, bytes]:
    """The operations that make a sequence's rows.

    Args:
        sequence: with rows.
        head: the header that they follow.
        addend: what the relocation adds to for the first row's address.
        order: of the file.

    Returns:
        Where in the code the first address is, and the code.
    """
    state = _State(head, sequence.rows[0].address)
    first, *others = sequence.rows
    state.put_flags(first)
    at = len(state.out) + 3
    state.out += b"\0\x09\x02" + addend.to_bytes(8, order)
    state.step(first)
    for row in others:
        state.put_flags(row)
        state.step(row)
    state.end(sequence.end)
    return at, bytes(state.out)


class _State:
    """What the machine's registers hold so far, and the code that made them so."""

    def __init__(self, head: Head, address: int) -> None:
        self.out = bytearray()
        self.head, self.address = head, address
        self.file, self.line, self.column = 1, 1, 0
        self.is_stmt, self.isa = head.is_stmt, 0
        self._most = (255 - head.opcode_base) // head.line_range

    def put_flags(self, row: Row) -> None:
        """Append what sets all registers for a row but address and line."""
        out = self.out
        if row.file != self.file:
            out += bytes([_SET_FILE]) + uleb_bytes(row.file)
        if row.column != self.column:
            out += bytes([_SET_COLUMN]) + uleb_bytes(row.column)
        if row.discriminator:
            number = uleb_bytes(row.discriminator)
            out += b"\0" + uleb_bytes(1 + len(number)) + b"\x04" + number
        if row.isa != self.isa:
            out += bytes([_SET_ISA]) + uleb_bytes(row.isa)
        flags = (
            (row.is_stmt != self.is_stmt, _NEGATE_STMT),
            (row.basic_block, _BASIC_BLOCK),
            (row.prologue_end, _PROLOGUE_END),
            (row.epilogue_begin, _EPILOGUE_BEGIN),
        )
        out += bytes(code for is_set, code in flags if is_set)
        self.file, self.column = row.file, row.column
        self.is_stmt, self.isa = row.is_stmt, row.isa

    def step(self, row: Row) -> None:
        """Append the row itself: by one operation where it can be."""
        head, out = self.head, self.out
        units, lines = self._units(row.address), row.line - self.line
        self.address, self.line = row.address, row.line
        needs_copy = not 0 <= lines - head.line_base < min(head.line_range, 256 - head.opcode_base)
        if needs_copy:
            out += bytes([_ADVANCE_LINE]) + sleb_bytes(lines)
            lines = 0
        special = lines - head.line_base + head.opcode_base
        is_special = 0 <= lines - head.line_base < head.line_range and special <= 255
        if (units or lines) and is_special:
            for by_const in (0, self._most):
                code = special + head.line_range * (units - by_const)
                if units >= by_const and code <= 255:
                    out += bytes([_CONST_ADD_PC] * (by_const > 0) + [code])
                    return
        if units:
            out += bytes([_ADVANCE_PC]) + uleb_bytes(units)
        is_whole = is_special and not needs_copy and (units or lines)
        out += bytes([special if is_whole else _COPY])

    def end(self, address: int) -> None:
        """Append the end of the sequence."""
        units = self._units(address)
        if units and units == self._most:
            self.out += bytes([_CONST_ADD_PC])
        elif units:
            self.out += bytes([_ADVANCE_PC]) + uleb_bytes(units)
        self.out += _END_SEQUENCE

    def _units(self, address: int) -> int:
        units, rest = divmod(address - self.address, self.head.min_insn)
        if rest:
            raise UnsupportedError(
                f".debug_line has instructions of {self.head.min_insn} bytes or a multiple, and "
                f"code {address - self.address} bytes apart"
            )
        return units
