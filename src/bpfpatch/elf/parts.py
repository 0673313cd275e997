"""The parts of an object that everything about its code is read from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import FormatError

from .padding import Padding, find_padding
from .raw import RawElf
from .space import INSN_SIZE, CodeSpace, Slots64, read_insns, read_space
from .symtab import (
    STT_FILE,
    STT_SECTION,
    RelSection,
    SymbolTable,
    is_defined,
    read_relocations,
    read_symbols,
)

MAX_CODE = 1 << 31
"""Bytes of code: an address within it has to fit an instruction's imm."""


@dataclass(frozen=True, eq=False)
class ObjectParts:
    """The checked parts of an object.

    Attributes:
        raw: the container.
        space: the code sections.
        symbols: the symbol table.
        rels: all relocation sections.
        insns: (n,) `isa.INSN` of all code, as the file has it.
    """

    raw: RawElf
    space: CodeSpace
    symbols: SymbolTable
    rels: tuple[RelSection, ...]
    insns: NDArray[Any]

    @cached_property
    def second(self) -> NDArray[np.bool_]:
        """(n,) which slots are the second one of an ld_imm64."""
        return isa.second_slots(self.insns)

    @cached_property
    def code_of_symbol(self) -> Slots64:
        """(n_symbols,) code section that each symbol is in, or -1."""
        rows = self.symbols.rows
        return self.space.code_index[np.where(is_defined(rows), rows["shndx"], 0)]

    @cached_property
    def functions(self) -> tuple[Slots64, Slots64]:
        """Slots at which function symbols start and end, by start; those out of range left out."""
        rows, code = self.symbols.rows, self.code_of_symbol
        mine = np.flatnonzero(self.symbols.is_function & (code >= 0))
        n_bytes = self.space.n_bytes(code[mine]).astype(np.uint64)
        mine = mine[rows["value"][mine] < n_bytes]
        start = self.space.slot(code[mine], rows["value"][mine].astype(np.int64))
        n_slots = np.minimum(rows["size"][mine] // INSN_SIZE, np.uint64(len(self.insns)))
        order = np.argsort(start, kind="stable")
        return start[order], (start + n_slots.astype(np.int64))[order]

    def text(self, slot: int) -> str:
        """An instruction as the file has it, for messages."""
        return isa.describe(self.insns, slot)

    def file_off(self, slot: int) -> int:
        """Where a slot is in the file."""
        section = int(self.space.sections[int(self.space.of_slot(slot))])
        return self.raw.byte_off(section, int(self.space.local_bytes(slot)))

    def section_name(self, slot: int) -> str:
        """Name of the section that a slot is in."""
        return self.raw.names[int(self.space.sections[int(self.space.of_slot(slot))])]


def read_parts(raw: RawElf) -> ObjectParts:
    """Read and check them.

    Raises:
        FormatError: code, symbols or relocations are cut off or name what is not there.
    """
    space = read_space(raw)
    n_bytes = int(space.starts[-1]) * INSN_SIZE
    if n_bytes > MAX_CODE:
        raise FormatError(f"{n_bytes} bytes of code are more than an imm field can span")
    symbols = read_symbols(raw)
    parts = ObjectParts(raw, space, symbols, read_relocations(raw, symbols), read_insns(raw, space))
    is_padding = _padding(parts)
    if not is_padding.any():
        return parts
    padding = Padding(is_padding, parts.insns[is_padding], space.starts)
    starts = padding.slot_of_word[space.starts]
    space = replace(space, starts=starts, padding=padding)
    return replace(parts, space=space, insns=parts.insns[~is_padding])


def _padding(parts: ObjectParts) -> NDArray[np.bool_]:
    """(w,) which words of all code are padding, where functions have sizes."""
    space, rows, n_words = parts.space, parts.symbols.rows, len(parts.insns)
    start, end = parts.functions
    if not (end > start).any():
        return np.zeros(n_words, np.bool_)
    edges = np.zeros(n_words + 1, np.int64)
    np.add.at(edges, start, 1)
    np.add.at(edges, np.minimum(end, n_words), -1)
    is_covered = np.cumsum(edges)[:-1] > 0
    has_functions = np.zeros(len(space.sections), np.bool_)
    has_functions[space.of_slot(start[end > start])] = True
    is_covered |= ~np.repeat(has_functions, np.diff(space.starts))
    is_named = np.zeros(n_words, np.bool_)
    code = parts.code_of_symbol
    mine = (code >= 0) & (parts.symbols.type != STT_SECTION) & (parts.symbols.type != STT_FILE)
    mine[mine] = rows["value"][mine] < space.n_bytes(code[mine]).astype(np.uint64)
    is_named[space.slot(code[mine], rows["value"][mine].astype(np.int64))] = True
    for rel in parts.rels:
        home = int(space.code_index[rel.target])
        if home >= 0:
            byte_off = rel.rows["byte_off"]
            byte_off = byte_off[byte_off < np.uint64(space.n_bytes(home))].astype(np.int64)
            is_named[space.slot(home, byte_off)] = True
    return find_padding(parts.insns, parts.second, is_covered, is_named)
