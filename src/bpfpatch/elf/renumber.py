"""Leave out sections and symbols, and renumber all that counts them.

Section numbers are in section headers (``sh_link``, ``sh_info``), symbols,
groups and the ELF header; symbol numbers in relocations, ``sh_info`` of the
symbol table and of groups, and in .llvm_addrsig.

Source: System V ABI, Object Files, chapter "Sections"; llvm 19,
llvm/docs/Extensions.rst, SHT_LLVM_ADDRSIG.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import UnsupportedError

from .layout import relayout
from .leb import uleb_bytes
from .raw import (
    REL,
    SHF_INFO_LINK,
    SHN_LORESERVE,
    SHT_GROUP,
    SHT_LLVM_ADDRSIG,
    SHT_REL,
    SHT_SYMTAB,
    SYM,
    Buffer,
    RawElf,
    encode,
)
from .symtab import SymbolTable

GONE: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Removal:
    """What leaves an object.

    Attributes:
        sections: indices of sections to leave out.
        symbols: (n,) which symbols leave.
    """

    sections: Collection[int]
    symbols: NDArray[np.bool_]


def renumber(
    raw: RawElf,
    symbols: SymbolTable,
    rows: dict[int, NDArray[Any]],
    changed: dict[int, Buffer],
    removal: Removal,
) -> RawElf:
    """The object with new contents, without what is to be removed, all numbers right.

    Args:
        raw: the object before.
        symbols: its symbol table, with values as they are to be written.
        rows: (n,) `REL` of all relocation sections that stay, by section.
        changed: new contents of other sections.
        removal: what leaves.

    Raises:
        UnsupportedError: something that stays refers to something that leaves.
    """
    new_section = _numbering(np.isin(np.arange(len(raw.shdrs)), list(removal.sections)))
    new_symbol = _numbering(removal.symbols)
    contents = dict(changed)
    for section, rel in rows.items():
        contents[section] = _relocations(raw, symbols, section, rel, new_symbol)
    if symbols.section >= 0:
        contents[symbols.section] = _symbols(raw, symbols, removal, new_section)
    for section in np.flatnonzero(raw.shdrs["type"] == SHT_GROUP).tolist():
        contents[section] = _group(raw, section, new_section)
    for section in np.flatnonzero(raw.shdrs["type"] == SHT_LLVM_ADDRSIG).tolist():
        contents[section] = _addrsig(bytes(raw.contents[section]), new_symbol)
    kept = {key: value for key, value in contents.items() if key not in removal.sections}
    out = relayout(raw, kept, removal.sections)
    header = out.header.copy()
    header["shstrndx"] = new_section[int(header["shstrndx"][0])]
    return replace(out, header=header, shdrs=_headers(out.shdrs, removal, new_section, new_symbol))


def _numbering(is_gone: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) new number of each, or GONE."""
    return np.where(is_gone, GONE, np.cumsum(~is_gone) - 1)


def _relocations(
    raw: RawElf,
    symbols: SymbolTable,
    section: int,
    rel: NDArray[Any],
    new_symbol: NDArray[np.int64],
) -> bytes:
    if not len(rel):
        return b""
    number = new_symbol[rel["sym"]]
    if (number == GONE).any():
        row = int(np.argmax(number == GONE))
        name = symbols.name(int(rel["sym"][row]))
        raise UnsupportedError(
            f"symbol {name} leaves the object, as what it names is gone, but relocation {row} of "
            f"{raw.names[section]} still needs it; keep what it names, or remove that relocation"
        )
    out = rel.copy()
    out["sym"] = number
    return encode(out, REL, raw.byteorder)


def _symbols(
    raw: RawElf, symbols: SymbolTable, removal: Removal, new_section: NDArray[np.int64]
) -> bytes:
    rows = symbols.rows[~removal.symbols].copy()
    ordinary = rows["shndx"] < SHN_LORESERVE
    rows["shndx"][ordinary] = new_section[rows["shndx"][ordinary]]
    return encode(rows, SYM, raw.byteorder)


def _group(raw: RawElf, section: int, new_section: NDArray[np.int64]) -> bytes:
    """A flag word and the numbers of the members; those that leave are left out."""
    mark = "<u4" if raw.byteorder == "little" else ">u4"
    content = raw.contents[section]
    words = np.frombuffer(content, mark, len(content) // 4)
    members = words[1:].astype(np.int64)
    known = members < len(new_section)
    members[known] = new_section[members[known]]
    kept = members[members != GONE]
    flags, tail = bytes(content[:4]), bytes(content[len(words) * 4 :])
    return flags + bytes(kept.astype(mark).tobytes()) + tail


def _addrsig(content: bytes, new_symbol: NDArray[np.int64]) -> bytes:
    """ULEB128 symbol numbers, in no order; those of symbols that leave are left out."""
    out = bytearray()
    value = shift = start = 0
    for at, byte in enumerate(content):
        value |= (byte & 0x7F) << min(shift, 63)
        shift += 7
        if byte & 0x80:
            continue
        number = int(new_symbol[value]) if value < len(new_symbol) else value
        if number == value:
            out += content[start : at + 1]
        elif number != GONE:
            out += uleb_bytes(number)
        value, shift, start = 0, 0, at + 1
    return bytes(out) + content[start:]


def _headers(
    shdrs: NDArray[Any],
    removal: Removal,
    new_section: NDArray[np.int64],
    new_symbol: NDArray[np.int64],
) -> NDArray[Any]:
    """Section headers with new numbers in ``link`` and ``info``, whatever the latter counts."""
    out = shdrs.copy()
    kind = shdrs["type"]
    is_symtab, is_group = kind == SHT_SYMTAB, kind == SHT_GROUP
    is_target = ((kind == SHT_REL) | ((shdrs["flags"] & SHF_INFO_LINK) != 0)) & ~is_symtab
    out["link"] = _renamed(shdrs["link"], new_section)
    out["info"] = np.where(is_target, _renamed(shdrs["info"], new_section), shdrs["info"])
    out["info"] = np.where(is_group, _renamed(shdrs["info"], new_symbol), out["info"])
    # Local symbols come first; sh_info of the table is the number of the first other one.
    gone_before = np.concatenate([[0], np.cumsum(removal.symbols)])
    first_global = np.minimum(shdrs["info"], len(removal.symbols)).astype(np.int64)
    out["info"] -= np.where(is_symtab, gone_before[first_global], 0).astype(np.uint32)
    return out


def _renamed(numbers: NDArray[Any], new: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers after the removal; 0 for what is gone, and no change for what never was one."""
    out = numbers.astype(np.int64)
    known = out < len(new)
    out[known] = np.maximum(new[out[known]], 0)
    return out
