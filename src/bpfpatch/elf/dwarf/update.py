"""Put all DWARF of an object right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import UnsupportedError

from ..raw import REL, Buffer, RawElf
from ..symtab import RelSection
from .aranges import move_aranges
from .frames import move_frames
from .lines import move_lines
from .lists import Lists
from .move import CodeMove
from .pool import AddressPool
from .sections import SPLIT, DebugSection, Late, Names
from .units import Tables, move_units

_ABBREV: Final = ".debug_abbrev"
_UNMOVED: Final = frozenset(
    {
        _ABBREV,
        ".debug_str",
        ".debug_line_str",
        ".debug_str_offsets",
        ".debug_pubnames",
        ".debug_pubtypes",
        ".debug_gnu_pubnames",
        ".debug_gnu_pubtypes",
        ".debug_names",
        ".debug_macro",
        ".debug_macinfo",
        ".debug_gdb_scripts",
    }
)
"""Sections without addresses of code, which refer to no place that moves but by relocations."""

_MOVED: Final = frozenset(
    {
        ".debug_info",
        ".debug_types",
        ".debug_line",
        ".debug_addr",
        ".debug_aranges",
        ".debug_ranges",
        ".debug_rnglists",
        ".debug_loc",
        ".debug_loclists",
        ".debug_frame",
    }
)


@dataclass(frozen=True, slots=True)
class DwarfUpdate:
    """What becomes of the debug sections.

    Attributes:
        contents: new contents, by section index.
        rows: new relocations, by the index of the section of relocations.
        names: of the sections that changed.
    """

    contents: Mapping[int, Buffer]
    rows: Mapping[int, NDArray[Any]]
    names: tuple[str, ...]


def update_dwarf(
    raw: RawElf,
    rels: Iterable[RelSection],
    debug: Collection[int],
    names: Names,
    move: CodeMove,
) -> DwarfUpdate:
    """DWARF for code that has moved.

    Args:
        raw: the object.
        rels: all its relocations.
        debug: the indices of its debug sections.
        names: what relocations may name.
        move: where code went.

    Raises:
        FormatError: a section is cut off, or refers to what is not there.
        UnsupportedError: something in it is of a form that is not known.
    """
    rel_of = _relocations(rels, debug)
    if rel_of and not len(names.symbols):
        raise UnsupportedError("the symbols that DWARF's relocations are against were stripped off")
    sections: list[DebugSection] = []
    for index in debug:
        rows = rel_of[index].rows if index in rel_of else np.zeros(0, REL["little"])
        sections.append(DebugSection(raw, index, rows, names, move))
    _move_all(_by_name(sections), move)
    for section in sections:
        section.unvisited()
    _follow(sections, names)
    for section in sections:
        section.finish()
    changed = [section for section in sections if section.is_changed]
    return DwarfUpdate(
        {section.index: section.to_bytes() for section in changed},
        {
            rel_of[section.index].section: section.new_rows()
            for section in changed
            if section.index in rel_of
        },
        tuple(dict.fromkeys(section.name for section in changed)),
    )


def _by_name(sections: Iterable[DebugSection]) -> dict[str, DebugSection]:
    """Sections in which something may be to do; only one may have such a name."""
    out: dict[str, DebugSection] = {}
    for section in sections:
        if section.name in _UNMOVED and section.name != _ABBREV:
            continue
        if section.name.endswith(".dwo"):
            raise UnsupportedError(f"it is {SPLIT}")
        if section.name not in _MOVED and section.name != _ABBREV:
            raise UnsupportedError(f"a section {section.name} is not understood")
        if section.name in out:
            raise UnsupportedError(f"there are two sections {section.name}")
        out[section.name] = section
    return out


def _relocations(rels: Iterable[RelSection], debug: Collection[int]) -> dict[int, RelSection]:
    out: dict[int, RelSection] = {}
    for rel in rels:
        if rel.target in debug and len(rel.rows):
            if rel.target in out:
                raise UnsupportedError("a debug section has two sections of relocations")
            out[rel.target] = rel
    return out


def _move_all(sections: Mapping[str, DebugSection], move: CodeMove) -> None:
    pool = AddressPool(sections.get(".debug_addr"), move)
    old_ranges, old_locations, ranges, locations = (
        Lists(sections.get(name), move, "loc" in name)
        for name in (".debug_ranges", ".debug_loc", ".debug_rnglists", ".debug_loclists")
    )
    info = [sections[name] for name in (".debug_info", ".debug_types") if name in sections]
    if info:
        if _ABBREV not in sections:
            raise UnsupportedError("there are no abbreviations for .debug_info")
        abbrev = sections[_ABBREV]
        tables = Tables(abbrev, pool, old_ranges, old_locations, ranges, locations, move)
        for section in info:
            move_units(section, tables)
    ranges.lengths()
    locations.lengths()
    pool.write()
    for name, how in _ALONE.items():
        if name in sections:
            how(sections[name], move)


_ALONE: Final[dict[str, Callable[[DebugSection, CodeMove], None]]] = {
    ".debug_line": move_lines,
    ".debug_aranges": move_aranges,
    ".debug_frame": move_frames,
}


def _follow(sections: Iterable[DebugSection], names: Names) -> None:
    """Have all offsets into sections whose places moved put right.

    Each is relocated, since a linker moves those sections, too.
    """
    resized = {one.index: one for one in sections if one.is_resized}
    if not resized:
        return
    shndx = names.symbols.rows["shndx"]
    for section in sections:
        rows = section.rows
        for row in np.flatnonzero(np.isin(shndx[rows["sym"]], list(resized))).tolist():
            pos, sym = int(rows["byte_off"][row]), int(rows["sym"][row])
            target = resized[int(shndx[sym])]
            if not names.is_section[sym]:
                raise UnsupportedError(f"{section.name} refers to {target.name} by a symbol in it")
            width = section.width(row)
            to = section.offset(pos, width)
            if to > len(target.data):
                raise section.cursor(pos).fail(f"an offset points past the end of {target.name}")
            section.late.append(Late(pos, width, target, to, 0))
