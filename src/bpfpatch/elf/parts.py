"""The parts of an object that everything about its code is read from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import FormatError

from .raw import RawElf
from .space import INSN_SIZE, CodeSpace, Slots64, read_insns, read_space
from .symtab import (
    STT_FUNC,
    RelSection,
    SymbolTable,
    is_defined,
    read_relocations,
    read_symbols,
)

MAX_CODE = 1 << 31
"""Bytes of code: an address within it has to fit an instruction's imm."""


@dataclass(frozen=True, eq=False)
class Parts:
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
        mine = np.flatnonzero((self.symbols.type == STT_FUNC) & (code >= 0))
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


def read_parts(raw: RawElf) -> Parts:
    """Read and check them.

    Raises:
        FormatError: code, symbols or relocations are cut off or name what is not there.
    """
    space = read_space(raw)
    n_bytes = int(space.starts[-1]) * INSN_SIZE
    if n_bytes > MAX_CODE:
        raise FormatError(f"{n_bytes} bytes of code are more than an imm field can span")
    symbols = read_symbols(raw)
    return Parts(raw, space, symbols, read_relocations(raw, symbols), read_insns(raw, space))
