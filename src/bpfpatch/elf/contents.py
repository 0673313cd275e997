"""What an object holds, as plain records: sections, symbols, programs, maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bpfpatch.facts.sections import section_kind

from .decode import ObjectCode, is_text_name
from .raw import SHT_NOBITS, RawElf
from .symtab import (
    STB_LOCAL,
    STT_NOTYPE,
    STT_OBJECT,
    STV_HIDDEN,
    STV_INTERNAL,
    SymbolTable,
    read_symbols,
)

LEGACY_MAPS: Final = "maps"
BTF_MAPS: Final = ".maps"


@dataclass(frozen=True, slots=True)
class Section:
    """A section.

    Attributes:
        index: its number.
        name: its name.
        type: SHT_* number.
        flags: SHF_* bits.
        byte_off: where its content is in the file.
        size: its size; of a NOBITS section in memory only.
        link: sh_link.
        info: sh_info.
        align: sh_addralign.
        data: its content.
    """

    index: int
    name: str
    type: int
    flags: int
    byte_off: int
    size: int
    link: int
    info: int
    align: int
    data: bytes | memoryview

    @property
    def has_bytes(self) -> bool:
        """Whether it takes up space in the file."""
        return self.type != SHT_NOBITS and self.size > 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol.

    Attributes:
        index: its number.
        name: its name; a section symbol has its section's.
        value: bytes from the start of its section.
        size: bytes that it covers, or 0.
        type: STT_* number.
        bind: STB_* number.
        section: number of its section; 0 where undefined.
        visibility: STV_* number.
    """

    index: int
    name: str
    value: int
    size: int
    type: int
    bind: int
    section: int
    visibility: int = 0

    @property
    def is_hidden(self) -> bool:
        """Whether other objects cannot refer to it."""
        return self.visibility in (STV_INTERNAL, STV_HIDDEN)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A function that a loader can load.

    Attributes:
        name: the function.
        section: name of its section, which says what kind of program it is.
        start: its first slot in the object's code.
        end: the slot after its last.
        type: kind of program as bpftool names it, as far as the section tells, or "".
    """

    name: str
    section: str
    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class MapSymbol:
    """A symbol that stands for a map which the object defines; see `mapdefs` for what it is.

    Attributes:
        name: its name.
        kind: "btf" (in .maps) or "legacy" (in maps, or maps/NAME).
        symbol: its symbol's number.
    """

    name: str
    kind: Literal["btf", "legacy"]
    symbol: int


def sections(raw: RawElf) -> tuple[Section, ...]:
    """All sections, in order."""
    return tuple(
        Section(
            index=index,
            name=raw.names[index],
            type=int(row["type"]),
            flags=int(row["flags"]),
            byte_off=int(row["byte_off"]),
            size=int(row["size"]),
            link=int(row["link"]),
            info=int(row["info"]),
            align=int(row["addralign"]),
            data=raw.contents[index],
        )
        for index, row in enumerate(raw.shdrs)
    )


def symbols(raw: RawElf) -> tuple[Symbol, ...]:
    """All symbols, in order.

    Raises:
        FormatError: the symbol table is broken.
    """
    table = read_symbols(raw)
    columns = [
        table.rows["value"].tolist(),
        table.rows["size"].tolist(),
        table.type.tolist(),
        table.bind.tolist(),
        table.rows["shndx"].tolist(),
        (table.rows["other"] & 3).tolist(),
    ]
    return tuple(
        Symbol(index, table.name(index), *row)
        for index, row in enumerate(zip(*columns, strict=True))
    )


def programs(code: ObjectCode) -> tuple[ProgramInfo, ...]:
    """Global functions of all code sections but .text, in the order of their slots.

    Source: linux v6.1, tools/lib/bpf/libbpf.c, bpf_object__add_programs() and
    prog_is_subprog().
    """
    subprogs = code.program.subprogs
    ends = subprogs.ends(len(code.program))
    out = []
    for index, slot, symbol in _functions(code):
        section = code.program.sections[int(subprogs.section[index])]
        if is_text_name(section):
            continue
        name = code.symbols.name(symbol)
        out.append(ProgramInfo(name, section, slot, int(ends[index]), program_type(section)))
    return tuple(out)


def functions(code: ObjectCode) -> tuple[ProgramInfo, ...]:
    """All functions with a name, in the order of their slots, as if each were a program."""
    subprogs = code.program.subprogs
    ends = subprogs.ends(len(code.program)).tolist()
    named = zip(
        subprogs.names, subprogs.section.tolist(), subprogs.start.tolist(), ends, strict=True
    )
    return tuple(
        ProgramInfo(name, code.program.sections[section], start, end, "")
        for name, section, start, end in named
        if name
    )


def _functions(code: ObjectCode) -> list[tuple[int, int, int]]:
    """(subprog, slot, symbol) of all global function symbols."""
    table = code.program.tables["symbol"]
    sym = table.rows["sym"].astype(np.int64)
    symbols = code.symbols
    is_mine = symbols.is_function[sym] & (symbols.bind[sym] != STB_LOCAL)
    slots, found = table.insn[is_mine], sym[is_mine]
    by_slot = np.argsort(slots, kind="stable")
    slots, found = slots[by_slot], found[by_slot]
    index = code.program.subprogs.of(slots)
    return list(zip(index.tolist(), slots.tolist(), found.tolist(), strict=True))


def maps(raw: RawElf) -> tuple[MapSymbol, ...]:
    """Maps by their symbols, in symbol order.

    Raises:
        FormatError: the symbol table is broken.
    """
    table = read_symbols(raw)
    out = []
    for section, name in enumerate(raw.names):
        kind: Literal["btf", "legacy"] = "legacy" if is_legacy_maps(name) else "btf"
        if kind == "legacy" or name == BTF_MAPS:
            found = np.flatnonzero(table.rows["shndx"] == section)
            out += [MapSymbol(table.name(sym), kind, sym) for sym in map_symbols(table, found)]
    return tuple(sorted(out, key=lambda info: info.symbol))


def is_legacy_maps(section: str) -> bool:
    """Whether a section of this name holds records of maps: ``maps``, or ``maps/NAME`` of old."""
    return section == LEGACY_MAPS or section.startswith(f"{LEGACY_MAPS}/")


def map_symbols(table: SymbolTable, found: NDArray[np.int64]) -> list[int]:
    """Those of some symbols of a section of maps that each name one: objects, and global labels."""
    kind, bind = table.type[found], table.bind[found]
    is_map = (kind == STT_OBJECT) | ((kind == STT_NOTYPE) & (bind != STB_LOCAL))
    out: list[int] = found[is_map].tolist()
    return out


def program_type(section: str) -> str:
    """The kind of program that a section's name asks for, or "" where it does not tell."""
    kind = section_kind(section).type
    return "" if kind is None else kind.text
