"""Take out of an object what only code that is gone had used: maps, variables, externs, types.

The bytes of a map's definition or of a variable stay in their section, so that no other one
moves; a section that nothing uses any more goes.

Source: libbpf v1.5, src/libbpf.c, bpf_object__init_user_btf_maps(), bpf_object__collect_externs()
and bpf_object_fixup_btf(): what a loader makes of symbols and of data sections in .BTF.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.btf import Btf, BtfExt, DataSec, ExtSection, Kind
from bpfpatch.btf.prune import unneeded, without_types
from bpfpatch.btf.wire import HEAD_WORDS

from .addresses import is_debug_name
from .contents import BTF_MAPS
from .object import ElfObject
from .raw import SHN_UNDEF, Buffer, RawElf
from .renumber import Removal, renumber
from .symtab import (
    STB_LOCAL,
    STT_FUNC,
    STT_SECTION,
    RelSection,
    SymbolTable,
    read_relocations,
    read_symbols,
)
from .values import READ_ONLY, WRITABLE, is_kind

_EXTERNS: Final = (".ksyms", ".kconfig")
_LD_IMM64: Final = 0x18
_RECORDS: Final = (".BTF", ".BTF.ext")
_WIDTHS: Final = {2: 8, 3: 4}
"""Bytes that a relocation of data covers, by type."""

Thing = tuple[str, str]
"""What an object has: its section, "" for what is not in it, and its name."""


def prune(before: ElfObject, after: ElfObject) -> ElfObject:
    """The object without what ``before`` used, and its own code and data do not.

    What nothing used to begin with stays: user space may.

    Args:
        before: the object as it was.
        after: the same with other code.

    Raises:
        UnsupportedError: the types are of a kind that is not known.
        FormatError: one of them is broken.
    """
    used = _uses(before, frozenset())
    gone: frozenset[Thing] = frozenset()
    while True:
        # What a map that goes held, such as the maps within it, may go as well.
        more = frozenset(used - _uses(after, gone))
        if more == gone:
            break
        gone = more
    lost = _lost_functions(before, after)
    if not gone and not lost:
        return after
    raw = _without(after, gone, lost)
    notices = after.notices + ((_notice(gone),) if gone else ())
    return replace(after, raw=raw, notices=notices)


def _notice(gone: Collection[Thing]) -> str:
    kinds: dict[str, list[str]] = {}
    for section, name in sorted(gone, key=lambda one: one[1]):
        kind = "map" if section == BTF_MAPS else "variable" if section else "extern"
        kinds.setdefault(kind, []).append(name)
    parts = [f"{kind} {', '.join(names)}" for kind, names in sorted(kinds.items())]
    return f"removed what only code that is gone had used: {'; '.join(parts)}"


def _is_data(section: str) -> bool:
    return any(is_kind(section, base) for base in (READ_ONLY, *WRITABLE))


@dataclass(frozen=True, slots=True)
class _Thing:
    section: int
    first: int
    end: int
    symbol: int
    key: Thing


def _things(raw: RawElf, symbols: SymbolTable) -> Iterator[_Thing]:
    """Maps and variables that have symbols, and what is not in the object."""
    rows, kinds = symbols.rows, symbols.type
    for index in range(1, len(symbols)):
        section = int(rows["shndx"][index])
        name = symbols.name(index)
        if kinds[index] in (STT_SECTION, STT_FUNC) or not name:
            continue
        if section == SHN_UNDEF:
            if symbols.bind[index] != STB_LOCAL:
                yield _Thing(-1, 0, 0, index, ("", name))
        elif section < len(raw.names):
            home = raw.names[section]
            if home == BTF_MAPS or _is_data(home):
                first = int(rows["value"][index])
                yield _Thing(section, first, first + int(rows["size"][index]), index, (home, name))


def _uses(obj: ElfObject, without: frozenset[Thing]) -> set[Thing]:
    """What code and data refer to, but for data that is left out."""
    raw = obj.raw
    symbols = read_symbols(raw)
    things = list(_things(raw, symbols))
    by_section: dict[int, list[_Thing]] = {}
    for one in things:
        by_section.setdefault(one.section, []).append(one)
    by_symbol = {one.symbol: one for one in things}
    out: set[Thing] = set()
    for rel in _live_relocations(raw, symbols):
        dropped = [one for one in by_section.get(rel.target, ()) if one.key in without]
        columns = (rel.rows[name].tolist() for name in ("byte_off", "sym", "type"))
        for byte_off, symbol, kind in zip(*columns, strict=True):
            if any(one.first <= byte_off < one.end for one in dropped):
                continue
            if symbol in by_symbol:
                out.add(by_symbol[symbol].key)
            section = int(symbols.rows["shndx"][symbol])
            at = int(symbols.rows["value"][symbol]) + _addend(raw, rel.target, byte_off, kind)
            for one in by_section.get(section, ()):
                if section != SHN_UNDEF and one.first <= at < max(one.end, one.first + 1):
                    out.add(one.key)
    return out


def _live_relocations(raw: RawElf, symbols: SymbolTable) -> Iterator[RelSection]:
    for rel in read_relocations(raw, symbols):
        name = raw.names[rel.target]
        if name not in _RECORDS and not is_debug_name(name):
            yield rel


def _addend(raw: RawElf, section: int, byte_off: int, kind: int) -> int:
    """What a relocated field holds: of an ld_imm64 the first imm, of data the word there."""
    content = bytes(raw.contents[section][byte_off : byte_off + 8])
    if raw.names[section] == BTF_MAPS or len(content) < 4:
        return 0
    is_code = bool(int(raw.shdrs["flags"][section]) & 4)
    if not is_code:
        return int.from_bytes(content[: _WIDTHS.get(kind, 4)], raw.byteorder, signed=True)
    if content[0] != _LD_IMM64 or len(content) < 8:
        return 0
    return int.from_bytes(content[4:], raw.byteorder, signed=True)


def _lost_functions(before: ElfObject, after: ElfObject) -> set[int]:
    """Ids of the types of functions that are gone."""
    old, new = (_func_ids(one.btf_ext) for one in (before, after))
    return old - new


def _func_ids(ext: BtfExt | None) -> set[int]:
    sections = () if ext is None else ext.func_info
    return {int(one) for part in sections for one in part.records["type_id"]}


def _without(obj: ElfObject, gone: Collection[Thing], lost: set[int]) -> RawElf:
    raw = obj.raw
    symbols = read_symbols(raw)
    things = list(_things(raw, symbols))
    leaving = [one for one in things if one.key in gone]
    sections = _empty_sections(raw, symbols, things, leaving)
    is_gone = np.isin(symbols.rows["shndx"], sections)
    is_gone[[one.symbol for one in leaving]] = True
    rels = read_relocations(raw, symbols)
    stale = [*sections, *(rel.section for rel in rels if rel.target in sections)]
    changed, place = _records(obj, gone, {raw.names[section] for section in sections}, lost)
    rows = {}
    for rel in rels:
        if rel.section in stale:
            continue
        inner = [one for one in leaving if one.section == rel.target]
        at = rel.rows["byte_off"].astype(np.int64)
        drop = is_gone[rel.rows["sym"]] & is_debug_name(raw.names[rel.target])
        if drop.any():
            changed[rel.target] = _tombstones(raw, rel, drop, changed)
        for one in inner:
            drop |= (at >= one.first) & (at < one.end)
        kept = rel.rows[~drop]
        if raw.names[rel.target] == _RECORDS[0]:
            kept = kept[[int(at) in place for at in kept["byte_off"]]].copy()
            kept["byte_off"] = [place[int(at)] for at in kept["byte_off"]]
        rows[rel.section] = kept
    return renumber(raw, symbols, rows, changed, Removal(stale, is_gone))


def _tombstones(
    raw: RawElf, rel: RelSection, drop: NDArray[np.bool_], changed: dict[int, Buffer]
) -> Buffer:
    """DWARF that speaks of what is gone, at an address that nothing has, as linkers do.

    Source: llvm 19, lld/ELF/InputSection.cpp, on -1 for what was discarded.
    """
    content = bytearray(changed.get(rel.target, raw.contents[rel.target]))
    for row in rel.rows[drop]:
        width = _WIDTHS.get(int(row["type"]), 4)
        at = int(row["byte_off"])
        content[at : at + width] = b"\xff" * width
    return bytes(content)


def _empty_sections(
    raw: RawElf, symbols: SymbolTable, things: list[_Thing], leaving: list[_Thing]
) -> list[int]:
    """Sections of which all is gone, and to which nothing refers."""
    left = {one.section for one in things} - {-1}
    stay = {one.symbol for one in things} - {one.symbol for one in leaving}
    left &= {one.section for one in leaving}
    left -= {one.section for one in things if one.symbol in stay}
    for rel in _live_relocations(raw, symbols):
        left -= set(symbols.rows["shndx"][rel.rows["sym"]].tolist())
    return sorted(left)


def _records(
    obj: ElfObject, gone: Collection[Thing], sections: set[str], lost: set[int]
) -> tuple[dict[int, Buffer], dict[int, int]]:
    """.BTF and .BTF.ext without what is gone, by section; and where fields of .BTF went."""
    btf, ext = obj.btf, obj.btf_ext
    home, ext_home = (obj.raw.find(name) for name in _RECORDS)
    if btf is None or home is None:
        return {}, {}
    old = btf
    btf, dropped = _without_rows(btf, gone, sections)
    needed = _func_ids(ext)
    for part in () if ext is None else ext.core_relo:
        needed |= {int(one) for one in part.records["type_id"]}
    left = unneeded(btf, dropped | lost, needed)
    new, new_id = without_types(btf, left)
    changed: dict[int, Buffer] = {home: new.to_bytes()}
    if ext is not None and ext_home is not None:
        renumbered = ext.with_sections(
            func_info=[_renumbered(part, new_id) for part in ext.func_info],
            core_relo=[_renumbered(part, new_id) for part in ext.core_relo],
        )
        changed[ext_home] = renumbered.to_bytes()
    return changed, _places(old, new, new_id)


def _places(old: Btf, new: Btf, new_id: NDArray[np.int64]) -> dict[int, int]:
    """Where fields that relocations fill in were in .BTF, and where they are: rows' places."""
    out: dict[int, int] = {}
    for type_id in np.flatnonzero(old.kinds == Kind.DATASEC).tolist():
        if not new_id[type_id]:
            continue
        before = dict(_fields(old, type_id))
        after = dict(_fields(new, int(new_id[type_id])))
        for variable, at in before.items():
            if new_id[variable] and int(new_id[variable]) in after:
                out[at] = after[int(new_id[variable])]
    return out


def _fields(btf: Btf, type_id: int) -> Iterator[tuple[int, int]]:
    """Of each row of a data section its variable, and where the place of it stands in .BTF.

    Source: linux v6.1, include/uapi/linux/btf.h, struct btf_var_secinfo.
    """
    found, start = btf.type(type_id), btf.byte_off_of(type_id)
    assert isinstance(found, DataSec)
    assert start is not None
    for index, row in enumerate(found.variables):
        yield row.type_id, start + 4 * HEAD_WORDS + 12 * index + 4


def _without_rows(btf: Btf, gone: Collection[Thing], sections: set[str]) -> tuple[Btf, set[int]]:
    """Data sections without rows of what is gone; ids of these, and of sections without rows."""
    types = btf.edit()
    dropped: set[int] = set()
    for type_id in np.flatnonzero(btf.kinds == Kind.DATASEC).tolist():
        found = btf.type(type_id)
        assert isinstance(found, DataSec)
        home = "" if found.name in _EXTERNS else found.name
        rows = [(row, (home, btf.name_of(row.type_id)) in gone) for row in found.variables]
        leaving = {row.type_id for row, is_gone in rows if is_gone}
        if not leaving and found.name not in sections:
            continue
        dropped |= leaving
        kept = tuple(row for row, is_gone in rows if not is_gone)
        if not kept or found.name in sections:
            dropped |= {type_id, *(row.type_id for row, _ in rows)}
        else:
            types.replace(type_id, replace(found, variables=kept))
    return types.build(), dropped


def _renumbered(part: ExtSection, new_id: NDArray[np.int64]) -> ExtSection:
    records: Any = part.records.copy()
    records["type_id"] = new_id[records["type_id"]]
    return ExtSection(part.name, part.name_off, records)
