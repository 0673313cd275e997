"""From instructions to rows of the opcode table, vectorised.

A code with one meaning is one table lookup. Codes with several are looked up
once more, by the one field that tells them apart, and only for those slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .encoding import Insns, words
from .opcodes import LD_IMM64, OPCODES, Opcode

UNKNOWN: Final = -1
"""Row of an opcode that the table lacks."""
SECOND: Final = -2
"""Row of a slot that is the second of an ld_imm64."""

Rows = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]

_PORTION: Final = 1 << 15
"""So many slots are looked at in one go: what is worked out on the way then stays in the cache."""

_NONE, _SRC, _OFF, _IMM = range(4)
_FIELDS: Final = {"src": _SRC, "off": _OFF, "imm": _IMM}
# A selector value is looked up at value - _FLOOR, as unsigned, so that what lies
# below is above _SPAN; what lies outside is unknown.
_FLOOR: Final = {_SRC: 0, _OFF: -1, _IMM: 0}
_SPAN: Final = 0x112


def _rows_by_code() -> list[list[int]]:
    table: list[list[int]] = [[] for _ in range(256)]
    for row, opcode in enumerate(OPCODES):
        table[opcode.code].append(row)
    return table


def _selector(rows: list[int]) -> int:
    for name, field in _FIELDS.items():
        if any(getattr(OPCODES[row], name) is not None for row in rows):
            return field
    return _NONE


def _build() -> tuple[Rows, npt.NDArray[np.uint8], npt.NDArray[np.int32], Rows]:
    by_code = np.full(256, UNKNOWN, np.int16)
    field_of = np.zeros(256, np.uint8)
    base_of = np.zeros(256, np.int32)
    blocks: list[Rows] = []
    for code, rows in enumerate(_ROWS_BY_CODE):
        if not rows:
            continue
        field = _selector(rows)
        field_of[code] = field
        if field == _NONE:
            assert len(rows) == 1, OPCODES[rows[0]].name
            by_code[code] = rows[0]
            continue
        base_of[code] = len(blocks) * _SPAN
        blocks.append(_block(rows, field))
    return by_code, field_of, base_of, np.concatenate(blocks)


def _block(rows: list[int], field: int) -> Rows:
    name = ("", "src", "off", "imm")[field]
    block = np.full(_SPAN, UNKNOWN, np.int16)
    for row in rows:
        opcode = OPCODES[row]
        if _needs_imm_too(opcode, field):
            continue
        at = getattr(opcode, name) - _FLOOR[field]
        assert 0 <= at < _SPAN - 1, opcode.name
        assert block[at] == UNKNOWN, opcode.name
        block[at] = row
    return block


def _needs_imm_too(opcode: Opcode, field: int) -> bool:
    return field == _OFF and opcode.imm is not None


_ROWS_BY_CODE: Final = _rows_by_code()
_BY_CODE, _FIELD_OF, _BASE_OF, _BY_FIELD = _build()

# Rows that imm sets apart from another row of the same code and off.
_BY_OFF_AND_IMM: Final = [
    (opcode.code, np.uint64(opcode.off & 0xFFFF | opcode.imm << 16), row)
    for row, opcode in enumerate(OPCODES)
    if opcode.off is not None and opcode.imm is not None
]


def second_slots(insns: Insns) -> Mask:
    """Say which slots are the second of an ld_imm64.

    In plain Python: ``slot = 0``; then while there are slots: if its code is
    ld_imm64, mark ``slot + 1`` and go on at ``slot + 2``, else at ``slot + 1``.

    Args:
        insns: (n,) `INSN`.

    Returns:
        (n,) bool. A second slot is never itself a first one, whatever its code.
    """
    return _seconds(_codes(insns))


def _seconds(codes: npt.NDArray[np.uint8]) -> Mask:
    out = np.zeros(codes.size, np.bool_)
    np.equal(codes[:-1], LD_IMM64, out=out[1:])
    if not any((out[part][1:] & out[part][:-1]).any() for part in portions(codes.size, 1)):
        return out
    # Of ld_imm64 codes that stand side by side, every other one is a second slot.
    firsts = np.flatnonzero(codes == LD_IMM64)
    starts_run = np.ones(firsts.size, np.bool_)
    np.not_equal(np.diff(firsts), 1, out=starts_run[1:])
    index = np.arange(firsts.size)
    run_start = np.maximum.accumulate(np.where(starts_run, index, 0))
    seconds = firsts[(index - run_start) % 2 == 0] + 1
    out[:] = False
    out[seconds[seconds < codes.size]] = True
    return out


def rows(insns: Insns) -> Rows:
    """Find every slot's row of the opcode table.

    Args:
        insns: (n,) `INSN`.

    Returns:
        (n,) int16: an index into `OPCODES`, `UNKNOWN` or `SECOND`.
    """
    codes, some = _codes(insns), words(insns)
    out = np.empty(len(insns), np.int16)
    for part in portions(len(insns)):
        out[part] = _refined(some[part], codes[part])
    np.copyto(out, SECOND, where=_seconds(codes))
    return out


def opcode_of(word: int) -> Opcode | None:
    """The opcode of one instruction; None where the table lacks it.

    Args:
        word: its eight bytes as one little-endian number, of its first slot.
    """
    found = None
    for row in _ROWS_BY_CODE[word & 0xFF]:
        opcode = OPCODES[row]
        if opcode.src is not None and opcode.src != word >> 12 & 0xF:
            continue
        if opcode.off is not None and opcode.off & 0xFFFF != word >> 16 & 0xFFFF:
            continue
        if opcode.imm is None:
            found = found or opcode
        elif opcode.imm & 0xFFFFFFFF == word >> 32:
            return opcode  # what imm sets apart is the narrower meaning
    return found


def rows_at(insns: Insns, slots: npt.NDArray[np.int64]) -> Rows:
    """The same as ``rows(insns)[slots]``, for a few of many slots.

    Args:
        insns: (n,) `INSN`.
        slots: (k,), ascending.
    """
    if not slots.size:
        return np.zeros(0, np.int16)
    out = _refined(words(insns)[slots], _codes(insns[slots]))
    out[second_slots(insns)[slots]] = SECOND
    return out


def alone(look: Callable[[Insns], npt.NDArray[Any]], firsts: Insns) -> npt.NDArray[Any]:
    """Apply a function of this package to (n,) instructions taken from here and there.

    In a program, what follows an ld_imm64 is its second slot and no instruction;
    taken out of it, the neighbour is another instruction. So each gets a zero
    slot after it, where there is any such.
    """
    if not (firsts["code"] == LD_IMM64).any():
        return look(firsts)
    apart = np.zeros(2 * len(firsts), firsts.dtype)
    apart[::2] = firsts
    return look(apart)[::2]


def portions(n_slots: int, overlap: int = 0) -> Iterator[slice]:
    """Slices that cover so many slots, one after the other; each has some of the next one's."""
    for start in range(0, n_slots, _PORTION):
        yield slice(start, start + _PORTION + overlap)


def _codes(insns: Insns) -> npt.NDArray[np.uint8]:
    # Packed bytes are several times faster to look up than every eighth one.
    return np.ascontiguousarray(insns["code"])


def _refined(some: npt.NDArray[np.uint64], codes: npt.NDArray[np.uint8]) -> Rows:
    # "clip" spares NumPy a check that uint8 in a table of 256 cannot fail.
    out: Rows = _BY_CODE.take(codes, mode="clip")
    fields = _FIELD_OF.take(codes, mode="clip")
    for field in (_SRC, _OFF, _IMM):
        at = np.flatnonzero(fields == field)
        if at.size:
            out[at] = _BY_FIELD.take(_BASE_OF.take(codes[at]) + _key(some[at], field))
    for code, off_and_imm, row in _BY_OFF_AND_IMM:
        at = np.flatnonzero(codes == code)
        out[at[some[at] >> np.uint64(16) == off_and_imm]] = row
    return out


def _key(some: npt.NDArray[np.uint64], field: int) -> npt.NDArray[np.uint32]:
    if field == _SRC:
        return (some.astype(np.uint32) >> np.uint32(12)) & np.uint32(0xF)
    if field == _OFF:
        offs = (some >> np.uint64(16)).astype(np.uint16) - np.uint16(_FLOOR[_OFF] & 0xFFFF)
        return np.minimum(offs.astype(np.uint32), np.uint32(_SPAN - 1))
    imms: npt.NDArray[np.uint32] = (some >> np.uint64(32)).astype(np.uint32)
    return np.minimum(imms, np.uint32(_SPAN - 1))


class OpcodeColumn:
    """One property of instructions, looked up through the table.

    Where all meanings of a code agree on the value, the code alone decides;
    the rest goes through the rows.

    Attributes:
        by_row: the value of every row, then that of a second slot, then that
            of an unknown opcode, so that `SECOND` and `UNKNOWN` index it.
        by_code: (256,) the value of every opcode byte whose meanings agree on it.
        is_mixed: (256,) where they do not.
    """

    __slots__ = ("_bytes", "_mixed", "_second", "by_code", "by_row", "is_mixed")

    def __init__(
        self, value: Callable[[Opcode], Any], dtype: npt.DTypeLike, second: Any, unknown: Any
    ) -> None:
        self.by_row = np.array([*map(value, OPCODES), second, unknown], dtype)
        of_row = self.by_row.tolist()
        self._second = second
        self.by_code = np.full(256, unknown, dtype)
        self.is_mixed = np.zeros(256, np.bool_)
        for code, code_rows in enumerate(_ROWS_BY_CODE):
            values = {of_row[row] for row in code_rows}
            if code_rows and _FIELD_OF[code] != _NONE:
                values.add(of_row[UNKNOWN])
            if len(values) > 1:
                self.is_mixed[code] = True
            elif values:
                self.by_code[code] = values.pop()
        self._bytes = self.by_code.tobytes() if self.by_code.itemsize == 1 else b""
        self._mixed = self.is_mixed.tobytes()

    def __call__(self, insns: Insns) -> npt.NDArray[Any]:
        """Look up (n,) `INSN`, giving (n,) values."""
        codes, some = _codes(insns), words(insns)
        out = np.empty(len(insns), self.by_code.dtype)
        for part in portions(len(insns)):
            here, codes_here = out[part], codes[part]
            as_bytes = codes_here.tobytes()
            if self._bytes:  # of one byte a value, this is the fastest table there is
                here[:] = np.frombuffer(as_bytes.translate(self._bytes), out.dtype)
            else:
                # "clip" also lets NumPy write into the result, without a buffer between.
                self.by_code.take(codes_here, mode="clip", out=here)
            mixed = np.flatnonzero(np.frombuffer(as_bytes.translate(self._mixed), np.bool_))
            if mixed.size:
                here[mixed] = self.by_row.take(_refined(some[part][mixed], codes_here[mixed]))
        np.copyto(out, self._second, where=_seconds(codes))
        return out
