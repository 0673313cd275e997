"""The symbol table and the relocation sections, checked and as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError

from .raw import (
    REL,
    SHDR_SIZE,
    SHF_EXECINSTR,
    SHN_LORESERVE,
    SHN_UNDEF,
    SHT_PROGBITS,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    SHT_SYMTAB_SHNDX,
    SYM,
    RawElf,
    decode,
)
from .strings import StringTable

STB_LOCAL: Final = 0
STB_GLOBAL: Final = 1
STB_WEAK: Final = 2
STT_NOTYPE: Final = 0
STT_OBJECT: Final = 1
STT_FUNC: Final = 2
STT_SECTION: Final = 3
STT_FILE: Final = 4
STV_INTERNAL: Final = 1
STV_HIDDEN: Final = 2

SHN_COMMON: Final = 0xFFF2
_SHN_XINDEX: Final = 0xFFFF

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SymbolTable:
    """All symbols of an object.

    Attributes:
        section: index of the section that holds them, or -1 where there is none.
        rows: (n,) `SYM`, little-endian.
        strings: their names.
        section_names: names of the object's sections, which section symbols go by.
        code_sections: the numbers of those with code.
    """

    section: int
    rows: NDArray[Any]
    strings: StringTable
    section_names: tuple[str, ...]
    code_sections: frozenset[int] = frozenset()
    _indices: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def find(self, name: str) -> int | None:
        """The first symbol of a name, or None; 0, the null symbol, is none."""
        if not self._indices:
            for index in range(len(self) - 1, 0, -1):
                self._indices[self.name(index)] = index
        return self._indices.get(name)

    @property
    def type(self) -> NDArray[np.uint8]:
        """(n,) STT_* of each symbol."""
        return np.asarray(self.rows["info"] & 0xF, np.uint8)

    @property
    def bind(self) -> NDArray[np.uint8]:
        """(n,) STB_* of each symbol."""
        return np.asarray(self.rows["info"] >> 4, np.uint8)

    @property
    def is_function(self) -> NDArray[np.bool_]:
        """(n,) which symbols are functions.

        Old compilers gave them no type: in an object without any, what is global in code is one.
        """
        typed = self.type == STT_FUNC
        if typed.any() or not self.code_sections:
            return np.asarray(typed, np.bool_)
        in_code = np.isin(self.rows["shndx"], list(self.code_sections))
        return np.asarray(in_code & (self.type == STT_NOTYPE) & (self.bind != STB_LOCAL), np.bool_)

    def name(self, symbol: int) -> str:
        """A symbol's name; a section symbol has its section's.

        Raises:
            FormatError: the name lies outside of the string table.
        """
        row = self.rows[symbol]
        name = self.strings.get(int(row["name_off"]))
        if name or (int(row["info"]) & 0xF) != STT_SECTION:
            return name
        section = int(row["shndx"])
        return self.section_names[section] if section < len(self.section_names) else ""


@dataclass(frozen=True, slots=True, eq=False)
class RelSection:
    """One section of relocations.

    Attributes:
        section: its index.
        target: index of the section that the relocations apply to.
        rows: (n,) `REL`, little-endian.
    """

    section: int
    target: int
    rows: NDArray[Any]


def read_symbols(raw: RawElf) -> SymbolTable:
    """The object's symbol table; an empty one where it was stripped off.

    Raises:
        FormatError: there are several, or it is cut off or names sections
            that do not exist.
    """
    types = raw.shdrs["type"]
    extended = np.flatnonzero(types == SHT_SYMTAB_SHNDX)
    if extended.size:
        raise FormatError(
            "section numbers beyond 65,279 (SHT_SYMTAB_SHNDX) are not supported",
            raw.byte_off(int(extended[0])),
        )
    tables = np.flatnonzero(types == SHT_SYMTAB).tolist()
    if not tables:
        return SymbolTable(-1, np.zeros(0, SYM["little"]), StringTable(b"", 0), raw.names)
    if len(tables) > 1:
        raise FormatError(
            f"sections {tables[0]} and {tables[1]} are both symbol tables", raw.byte_off(tables[1])
        )
    section = tables[0]
    header = raw.shdrs[section]
    _check_table(raw, section, SYM["little"].itemsize)
    strtab = int(header["link"])
    if strtab >= len(raw.shdrs) or int(raw.shdrs["type"][strtab]) != SHT_STRTAB:
        raise FormatError(
            f"the symbol table's sh_link {strtab} is not a string table",
            _header_off(raw, section) + 40,
        )
    strings = StringTable(raw.contents[strtab], raw.byte_off(strtab))
    rows = decode(raw.contents[section], SYM, raw.byteorder)
    _check_symbols(raw, section, rows)
    is_code = (raw.shdrs["type"] == SHT_PROGBITS) & (raw.shdrs["flags"] & SHF_EXECINSTR != 0)
    code = frozenset(np.flatnonzero(is_code).tolist())
    return SymbolTable(section, rows, strings, raw.names, code)


def _check_symbols(raw: RawElf, section: int, rows: NDArray[Any]) -> None:
    shndx = rows["shndx"]
    is_bad = (shndx >= len(raw.shdrs)) & (shndx < SHN_LORESERVE) | (shndx == _SHN_XINDEX)
    if is_bad.any():
        index = int(np.argmax(is_bad))
        raise FormatError(
            f"symbol {index} is in section {int(shndx[index])} of {len(raw.shdrs)}",
            raw.byte_off(section, index * rows.itemsize + 6),
        )


def read_relocations(raw: RawElf, symbols: SymbolTable) -> tuple[RelSection, ...]:
    """All relocation sections, in section order.

    Raises:
        FormatError: one is cut off, has explicit addends, or names a section or
            symbol that does not exist.
    """
    types = raw.shdrs["type"]
    explicit = np.flatnonzero(types == SHT_RELA)
    if explicit.size:
        raise FormatError(
            f"{raw.names[explicit[0]]} holds relocations with explicit addends (SHT_RELA), which "
            "no BPF loader reads",
            raw.byte_off(int(explicit[0])),
        )
    sections = np.flatnonzero(types == SHT_REL).tolist()
    return tuple(_read_rel(raw, symbols, section) for section in sections)


def _read_rel(raw: RawElf, symbols: SymbolTable, section: int) -> RelSection:
    header = raw.shdrs[section]
    target, link = int(header["info"]), int(header["link"])
    _check_table(raw, section, REL["little"].itemsize)
    if not 0 < target < len(raw.shdrs):
        raise FormatError(
            f"{raw.names[section]} relocates section {target}, which does not exist",
            _header_off(raw, section) + 44,
        )
    rows = decode(raw.contents[section], REL, raw.byteorder)
    if len(rows) and link != symbols.section:
        raise FormatError(
            f"{raw.names[section]} uses section {link} as its symbol table, and it is not one",
            _header_off(raw, section) + 40,
        )
    is_bad = rows["sym"] >= max(len(symbols), 1)
    if is_bad.any():
        index = int(np.argmax(is_bad))
        raise FormatError(
            f"relocation {index} of {raw.names[section]} is against symbol "
            f"{int(rows['sym'][index])} of {len(symbols)}",
            raw.byte_off(section, index * rows.itemsize + 8),
        )
    return RelSection(section, target, rows)


def _check_table(raw: RawElf, section: int, entry: int) -> None:
    size, entsize = len(raw.contents[section]), int(raw.shdrs["entsize"][section])
    if entsize != entry:
        raise FormatError(
            f"section {section} {raw.names[section]} has entries of {entsize} bytes, not {entry}",
            _header_off(raw, section) + 56,
        )
    if size % entry:
        raise FormatError(
            f"section {section} {raw.names[section]} of {size} bytes does not hold whole entries "
            f"of {entry}",
            _header_off(raw, section) + 32,
        )


def _header_off(raw: RawElf, section: int) -> int:
    return int(raw.header["shoff"][0]) + section * SHDR_SIZE


def is_defined(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether each symbol is in a section of this object."""
    return np.asarray((rows["shndx"] != SHN_UNDEF) & (rows["shndx"] < SHN_LORESERVE), np.bool_)
