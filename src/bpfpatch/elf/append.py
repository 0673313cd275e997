"""Put sections, strings and symbols at the end of an object, so that no number changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from bpfpatch.errors import UnsupportedError

from .layout import relayout
from .raw import (
    SHDR,
    SHDR_SIZE,
    SHN_LORESERVE,
    SHT_NOBITS,
    SHT_REL,
    SHT_STRTAB,
    SYM,
    Buffer,
    RawElf,
    encode,
    pieces,
)
from .symtab import STB_GLOBAL, STT_NOTYPE, STT_OBJECT, read_symbols

REL_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class NewSection:
    """A section to append.

    Attributes:
        name: of the section.
        type: SHT_* number.
        flags: SHF_* bits.
        data: its content; of a NOBITS section its size is all that counts.
        align: a power of two.
        link: sh_link.
        info: sh_info.
        entsize: bytes of an entry of a table, or 0.
    """

    name: str
    type: int
    flags: int
    data: bytes
    align: int = 8
    link: int = 0
    info: int = 0
    entsize: int = 0


@dataclass(frozen=True, slots=True)
class NewSymbol:
    """A global symbol to append.

    Attributes:
        name: of the symbol.
        section: number of its section, which may be one that is appended with it; 0 where
            something else defines it.
        value: bytes from the section's start.
        size: bytes that it covers.
    """

    name: str
    section: int
    value: int = 0
    size: int = 0


def append(
    raw: RawElf,
    sections: Sequence[NewSection] = (),
    symbols: Sequence[NewSymbol] = (),
    changed: dict[int, Buffer] | None = None,
) -> RawElf:
    """The object with more sections and symbols after those that it has.

    Sections and symbols that were there keep their numbers, and contents that
    are not named here their bytes.

    Args:
        raw: the object.
        sections: numbered from ``len(raw.shdrs)`` on.
        symbols: numbered from the end of the symbol table on.
        changed: new contents of sections that are there, by number.

    Raises:
        UnsupportedError: too many sections, or no symbol table to append to.
    """
    if len(raw.shdrs) + len(sections) >= SHN_LORESERVE:
        raise UnsupportedError(f"an object has room for at most {SHN_LORESERVE - 1} sections")
    contents = dict(changed or {})
    strings = _Strings(raw, contents)
    names = [strings.add(int(raw.header["shstrndx"][0]), one.name) for one in sections]
    if symbols:
        table = read_symbols(raw)
        if table.section < 0:
            raise UnsupportedError(
                "the object has no symbol table, which a new variable or map needs; strip it "
                "with -g (--strip-debug) instead of --strip-all"
            )
        home = int(raw.shdrs["link"][table.section])
        rows = np.zeros(len(symbols), SYM["little"])
        for row, one in zip(rows, symbols, strict=True):
            row["name_off"] = strings.add(home, one.name)
            row["info"] = STB_GLOBAL << 4 | (STT_OBJECT if one.section else STT_NOTYPE)
            row["shndx"], row["value"], row["size"] = one.section, one.value, one.size
        grown = np.concatenate([table.rows, rows])
        contents[table.section] = encode(grown, SYM, raw.byteorder)
    return _with_sections(relayout(raw, contents | strings.contents), sections, names)


def rel_sections(raw: RawElf, code_sections: Iterable[int]) -> list[NewSection]:
    """An empty section of relocations for each of some code sections."""
    table = read_symbols(raw).section
    return [
        NewSection(
            f".rel{raw.names[section]}",
            SHT_REL,
            0x40,  # SHF_INFO_LINK
            b"",
            link=max(table, 0),
            info=section,
            entsize=REL_SIZE,
        )
        for section in code_sections
    ]


class _Strings:
    """String tables that grow; section and symbol names may share one."""

    def __init__(self, raw: RawElf, changed: dict[int, Buffer]) -> None:
        self._raw = raw
        self._changed = changed
        self.contents: dict[int, Buffer] = {}

    def add(self, section: int, text: str) -> int:
        """Where the text is in the table, after all that was there."""
        if int(self._raw.shdrs["type"][section]) != SHT_STRTAB:
            raise UnsupportedError(f"section {section} holds names but is not a string table")
        old = self._changed.get(section, self._raw.contents[section])
        data = bytes(self.contents.get(section, old)) or b"\0"
        self.contents[section] = data + text.encode("utf-8", "surrogateescape") + b"\0"
        return len(data)


def _with_sections(raw: RawElf, new: Sequence[NewSection], names: list[int]) -> RawElf:
    """New contents go where the file's headers were if those came last, else after all."""
    if not new:
        return raw
    shoff = int(raw.header["shoff"][0])
    ordered = pieces(raw)
    ends = [piece.end for piece in ordered] + [off + len(gap) for off, gap in raw.gaps]
    old_table_end = shoff + len(raw.shdrs) * SHDR_SIZE
    at = shoff if max(ends) == old_table_end else max(ends)
    rows: Any = np.zeros(len(new), SHDR["little"])
    contents = []
    for row, one, name_off in zip(rows, new, names, strict=True):
        at += -at % one.align
        has_bytes = one.type != SHT_NOBITS
        row["name_off"], row["type"], row["flags"] = name_off, one.type, one.flags
        row["byte_off"], row["size"], row["link"] = at, len(one.data), one.link
        row["info"], row["addralign"], row["entsize"] = one.info, one.align, one.entsize
        contents.append(one.data if has_bytes else b"")
        at += len(one.data) if has_bytes else 0
    at += -at % 8
    header = raw.header.copy()
    header["shoff"] = at
    header["shnum"] = len(raw.shdrs) + len(new)
    return replace(
        raw,
        header=header,
        shdrs=np.concatenate([raw.shdrs, rows]),
        contents=(*raw.contents, *contents),
        names=(*raw.names, *(one.name for one in new)),
    )
