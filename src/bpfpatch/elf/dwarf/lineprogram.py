"""Write a sequence of rows as a line program.

Source: DWARF 5, sections 6.2.5.1 to 6.2.5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpfpatch.errors import UnsupportedError

from ..raw import ByteOrder
from .cursor import sleb_bytes, uleb_bytes

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
        head: the header that they stand behind.
        addend: what the relocation adds to for the first row's address.
        order: of the file.

    Returns:
        Where in the code the first address is, and the code.
    """
    out = bytearray(b"\0\x09\x02" + addend.to_bytes(8, order))
    state = _State(out, head, sequence.rows[0].address)
    for row in sequence.rows:
        state.put(row)
    out += state.advance(sequence.end)
    out += _END_SEQUENCE
    return 3, bytes(out)


class _State:
    """What the machine's registers hold so far."""

    def __init__(self, out: bytearray, head: Head, address: int) -> None:
        self.out, self.head, self.address = out, head, address
        self.file, self.line, self.column = 1, 1, 0
        self.is_stmt, self.isa = head.is_stmt, 0

    def put(self, row: Row) -> None:
        """Append what makes one more row."""
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
        self._step(row.address, row.line - self.line)
        self.file, self.line, self.column = row.file, row.line, row.column
        self.is_stmt, self.isa = row.is_stmt, row.isa

    def _step(self, address: int, lines: int) -> None:
        """One row, this far on: by one operation where it can be."""
        head, out = self.head, self.out
        if not head.line_base <= lines < head.line_base + head.line_range:
            out += bytes([_ADVANCE_LINE]) + sleb_bytes(lines)
            lines = 0
        units = self._units(address)
        self.address = address
        if not head.line_base <= lines < head.line_base + head.line_range:
            out += self._advance(units) + bytes([_COPY])  # a header whose range leaves out zero
            return
        most = (255 - head.opcode_base) // head.line_range
        for by_const in (0, most):
            code = lines - head.line_base + head.line_range * (units - by_const) + head.opcode_base
            if units >= by_const and code <= 255:
                out += bytes([_CONST_ADD_PC] * (by_const > 0) + [code])
                return
        out += self._advance(units)
        out += bytes([lines - head.line_base + head.opcode_base])

    def advance(self, address: int) -> bytes:
        """What moves the address alone."""
        return self._advance(self._units(address))

    def _advance(self, units: int) -> bytes:
        return bytes([_ADVANCE_PC]) + uleb_bytes(units) if units else b""

    def _units(self, address: int) -> int:
        units, rest = divmod(address - self.address, self.head.min_insn)
        if rest:
            raise UnsupportedError(
                f".debug_line has instructions of {self.head.min_insn} bytes or a multiple, and "
                f"code {address - self.address} bytes apart"
            )
        return units
