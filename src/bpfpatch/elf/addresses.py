"""Addresses of code that lie in data: pointers to functions, and jump tables.

Source: llvm 21, BPF back end, "Support Jump Table" (llvm-project pull request
149715), and "Avoid relocation for jumptable entries" (166301); libbpf 1.7,
create_jt_map(): an entry of .jumptables is 8 bytes, and counts the bytes from
the start of the code section whose instructions load the table's address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError
from bpfpatch.program import Anchor, AnchoredTable, Program

from .cleanup import CLEANUP_SECTION
from .fields import CodeRelocs
from .parts import ObjectParts
from .raw import RawElf
from .space import ADDRESS, ADDRESS_TABLE, JUMP_TABLE, CodeSpace, Slots64
from .symtab import STT_SECTION, RelSection

JUMP_TABLES_SECTION: Final = ".jumptables"
ENTRY_SIZE: Final = 8

WIDTHS: Final = {1: 8, 2: 8, 3: 4, 4: 4, 10: 4, 11: 4, 12: 8}
"""Bytes that a relocation type covers in data. 1 and 10 are what clang up to 12 used there, 11
and 12 binutils up to 2.40. Source: linux v6.1, Documentation/bpf/llvm_reloc.rst."""

ABSOLUTE_TYPES: Final = (11, 12)
"""Types with which binutils up to 2.40 puts the whole address of a named symbol in place, and
what is added to it; with all others the field is what is added, and no more."""

_DEBUG_PREFIXES: Final = (".eh_frame", ".gnu.debuglto_")
_DWARF: Final = frozenset(
    {
        "abbrev", "addr", "aranges", "cu_index", "frame", "funcnames", "gdb_scripts",
        "gnu_pubnames", "gnu_pubtypes", "info", "line", "line_str", "loc", "loclists", "macinfo",
        "macro", "names", "pubnames", "pubtypes", "ranges", "rnglists", "str", "str_offsets",
        "sup", "tu_index", "typenames", "types", "varnames", "weaknames",
    }
)  # fmt: skip
"""What follows ``.debug_`` in names of DWARF. Source: DWARF 5, section 7; llvm 19, Dwarf.def."""
_EXCEPTIONS: Final = ".gcc_except_table"
_NONE: Final = 0
_ALLOCATED: Final = 2


def is_debug_name(name: str) -> bool:
    """Whether a section of this name holds DWARF; others may start with ``.debug_`` as well."""
    for prefix in (".debug_", ".zdebug_"):
        if name.startswith(prefix):
            return name.removeprefix(prefix).removesuffix(".dwo") in _DWARF
    return name.startswith(_DEBUG_PREFIXES)


def opaque_sections(parts: ObjectParts) -> tuple[str, ...]:
    """Names of sections that say something of code that is not understood.

    Those are tables of exceptions, which count bytes within functions, and what only tools read,
    if it refers to code. Data of programs is understood: it holds addresses, and no more.
    """
    names = parts.raw.names
    out = [
        name
        for section, name in enumerate(names)
        if name.startswith(_EXCEPTIONS) and parts.raw.contents[section]
    ]
    for rel in parts.rels:
        name = names[rel.target]
        is_tool = not int(parts.raw.shdrs["flags"][rel.target]) & _ALLOCATED
        if not is_tool or not _holds_addresses(parts, rel) or name == JUMP_TABLES_SECTION:
            continue
        sym = rel.rows["sym"][rel.rows["type"] != _NONE]
        if (parts.code_of_symbol[sym] >= 0).any():
            out.append(name)
    return tuple(out)


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """Integers in data that stand for instructions.

    Attributes:
        slot: (n,) slots that they stand for.
        rows: (n,) `ADDRESS`.
        jump_section: index of .jumptables, or -1.
        loose: byte offsets in .jumptables of entries that cannot be told to belong
            to one code section.
        pointed_at: slots whose symbol a relocation of data names.
    """

    slot: Slots64
    rows: NDArray[Any]
    jump_section: int
    loose: Slots64
    pointed_at: Slots64

    def tables(self, starts: Slots64) -> dict[str, AnchoredTable]:
        """Function starts follow calls; all else, as jumps do, where a jump arrives."""
        is_start = np.isin(self.slot, starts) & (self.rows["section"] != self.jump_section)
        slot = self.slot.astype(np.int32)
        return {
            ADDRESS_TABLE: AnchoredTable(slot[is_start], self.rows[is_start], Anchor.ENTRY),
            JUMP_TABLE: AnchoredTable(slot[~is_start], self.rows[~is_start], Anchor.LAND),
        }


def read_addresses(parts: ObjectParts, relocs: CodeRelocs) -> Addresses:
    """Find all addresses of code in data.

    Args:
        parts: the object's.
        relocs: the relocations of its code.

    Raises:
        FormatError: one stands for no instruction.
    """
    found = [(np.zeros(0, np.int64), np.zeros(0, ADDRESS))]
    for rel in parts.rels:
        if _holds_addresses(parts, rel):
            found.append(_relocated(parts, rel))
    section = parts.raw.find(JUMP_TABLES_SECTION)
    loose = np.zeros(0, np.int64)
    if section is not None:
        known = np.concatenate([rows for _, rows in found])
        slots, rows, loose = _jump_tables(parts, relocs, section, known)
        found.append((slots, rows))
    return Addresses(
        np.concatenate([slots for slots, _ in found]),
        np.concatenate([rows for _, rows in found]),
        -1 if section is None else section,
        loose,
        _pointed_at(parts),
    )


def _pointed_at(parts: ObjectParts) -> Slots64:
    """Slots of the named symbols in code that relocations of data are against."""
    sym = [rel.rows["sym"] for rel in parts.rels if _holds_addresses(parts, rel)]
    found = np.unique(np.concatenate([np.zeros(0, np.uint32), *sym])).astype(np.int64)
    if not found.size:
        return found
    code = parts.code_of_symbol[found]
    found, code = found[code >= 0], code[code >= 0]
    value = parts.symbols.rows["value"][found].astype(np.int64)
    is_named = (parts.symbols.type[found] != STT_SECTION) & (value < parts.space.n_bytes(code))
    slots: Slots64 = parts.space.slot(code[is_named], value[is_named])
    return slots


def _holds_addresses(parts: ObjectParts, rel: RelSection) -> bool:
    name = parts.raw.names[rel.target]
    is_own = int(parts.space.code_index[rel.target]) >= 0
    is_own |= name in (".BTF", ".BTF.ext", CLEANUP_SECTION)
    return not is_own and not is_debug_name(name) and len(parts.symbols) > 0


def _relocated(parts: ObjectParts, rel: RelSection) -> tuple[Slots64, NDArray[Any]]:
    """Addresses that a relocation and an addend in place make up together.

    A pointer to a function symbol with no addend needs no row: it moves with
    the symbol.
    """
    # A relocation of type 0 only names its symbol, as in .llvm.call-graph-profile.
    picked = rel.rows[(parts.code_of_symbol[rel.rows["sym"]] >= 0) & (rel.rows["type"] != _NONE)]
    if not picked.size:
        return np.zeros(0, np.int64), np.zeros(0, ADDRESS)
    width = _widths(parts, rel, picked)
    byte_off, sym = picked["byte_off"].astype(np.int64), picked["sym"].astype(np.int64)
    addend = _integers(parts.raw, rel.target, byte_off, width)
    value = parts.symbols.rows["value"][sym].astype(np.int64)
    is_named = parts.symbols.type[sym] != STT_SECTION
    needs_row = ~is_named | (addend != 0)
    code = parts.code_of_symbol[sym]
    # See FORM_ABSOLUTE; here the type tells who wrote the field.
    in_full = is_named & needs_row & np.isin(picked["type"], ABSOLUTE_TYPES)
    local = np.where(in_full, addend, value + addend)
    rows = np.zeros(sym.size, ADDRESS)
    rows["section"], rows["byte_off"], rows["width"] = rel.target, byte_off, width
    rows["sym"] = np.where(in_full, -1, sym)
    rows = rows[needs_row]
    return _to_slots(parts, rows, code[needs_row], local[needs_row]), rows


def _widths(parts: ObjectParts, rel: RelSection, picked: NDArray[Any]) -> NDArray[np.int64]:
    """(n,) bytes that each relocation covers.

    Raises:
        FormatError: one is of an unknown type or does not fit in its section.
    """
    kinds = [picked["type"] == kind for kind in WIDTHS]
    width = np.select(kinds, list(WIDTHS.values()), 0).astype(np.int64)
    size = len(parts.raw.contents[rel.target])
    is_bad = (width == 0) | (picked["byte_off"] >= np.uint64(size))
    is_bad |= np.minimum(picked["byte_off"], np.uint64(size)).astype(np.int64) + width > size
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise FormatError(
            f"{parts.raw.names[rel.section]} has a relocation of type {int(picked['type'][row])} "
            f"against code, which does not fit at byte {int(picked['byte_off'][row]):#x} of "
            f"{parts.raw.names[rel.target]}",
            parts.raw.byte_off(rel.section),
        )
    return width


def _to_slots(parts: ObjectParts, rows: NDArray[Any], code: Slots64, local: Slots64) -> Slots64:
    """The instructions at these bytes of these code sections."""
    is_bad = ~parts.space.is_slot(code, local)
    slots: Slots64 = parts.space.slot(code, np.where(is_bad, 0, local))
    is_bad[~is_bad] |= parts.second[slots[~is_bad]]
    if is_bad.any():
        row = int(np.argmax(is_bad))
        section = int(rows["section"][row])
        names = parts.raw.names
        raise FormatError(
            f"{names[section]} holds {int(local[row]):#x} as an address in "
            f"{names[int(parts.space.sections[code[row]])]}, where no instruction starts",
            parts.raw.byte_off(section, int(rows["byte_off"][row])),
        )
    return slots


def _integers(raw: RawElf, section: int, byte_off: Slots64, width: NDArray[np.int64]) -> Slots64:
    """Signed integers of 4 or 8 bytes at any places of a section."""
    content = np.frombuffer(raw.contents[section], np.uint8)
    mark = "<" if raw.byteorder == "little" else ">"
    out = np.zeros(byte_off.size, np.int64)
    for size in (4, 8):
        picked = np.flatnonzero(width == size)
        if picked.size:
            grid = content[byte_off[picked, None] + np.arange(size)]
            out[picked] = np.ascontiguousarray(grid).view(f"{mark}i{size}")[:, 0]
    return out


def _jump_tables(
    parts: ObjectParts, relocs: CodeRelocs, section: int, known: NDArray[Any]
) -> tuple[Slots64, NDArray[Any], Slots64]:
    """Entries of .jumptables that no relocation of their own places; and the loose ones."""
    n_entries = len(parts.raw.contents[section]) // ENTRY_SIZE
    owner = _owners(parts, relocs, section, n_entries)
    index = np.arange(n_entries)
    placed = known["byte_off"][known["section"] == section].astype(np.int64)
    is_open = ~np.isin(index, placed // ENTRY_SIZE)
    loose = index[is_open & (owner < 0)] * ENTRY_SIZE
    index = index[is_open & (owner >= 0)]
    rows = np.zeros(index.size, ADDRESS)
    rows["section"], rows["byte_off"] = section, index * ENTRY_SIZE
    rows["width"], rows["sym"] = ENTRY_SIZE, -1
    width = np.full(index.size, ENTRY_SIZE, np.int64)
    local = _integers(parts.raw, section, index * ENTRY_SIZE, width)
    return _to_slots(parts, rows, owner[index], local), rows, loose


_UNOWNED: Final = -1
_CONTESTED: Final = -2


def _owners(parts: ObjectParts, relocs: CodeRelocs, section: int, n_entries: int) -> Slots64:
    """(n_entries,) code section that each entry counts from, or a negative number."""
    owner = np.full(n_entries, _UNOWNED, np.int64)
    symbols = parts.symbols
    if not len(symbols):
        return owner
    in_tables = np.flatnonzero(symbols.rows["shndx"][relocs.rows["sym"]] == section)
    sym = relocs.rows["sym"][in_tables].astype(np.int64)
    user = parts.space.of_slot(relocs.slot[in_tables])
    is_one = user.size > 0 and bool((user == user[0]).all())
    # Entries that no symbol covers, as after a section symbol, belong to the only user.
    if is_one:
        owner[:] = user[0]
        return owner
    limit = np.uint64(n_entries * ENTRY_SIZE)
    first = np.minimum(symbols.rows["value"][sym], limit).astype(np.int64) // ENTRY_SIZE
    count = np.minimum(symbols.rows["size"][sym], limit).astype(np.int64) // ENTRY_SIZE
    seen = np.unique(np.stack([first, first + count, user], axis=1), axis=0)
    covered = 0
    for start, end, code in seen.tolist():
        covered += max(min(end, n_entries) - start, 0)
        if covered > 16 * n_entries:
            owner[:] = _CONTESTED
            return owner
        run = owner[start:end]
        run[(run != _UNOWNED) & (run != code)] = _CONTESTED
        run[run == _UNOWNED] = code
    return owner


def write_addresses(
    raw: RawElf,
    program: Program,
    space: CodeSpace,
    value: NDArray[Any],
) -> dict[int, bytes]:
    """New contents of the sections that hold addresses, by section index.

    Args:
        raw: the file before the edit.
        program: with the tables of addresses.
        space: the program's code sections.
        value: (n_symbols,) new values of the symbols.
    """
    out: dict[int, bytes] = {}
    tables = [program.tables[ADDRESS_TABLE], program.tables[JUMP_TABLE]]
    slot = np.concatenate([table.insn for table in tables]).astype(np.int64)
    rows = np.concatenate([table.rows for table in tables])
    base = np.zeros(slot.size, np.int64)
    has_symbol = rows["sym"] >= 0
    base[has_symbol] = value[rows["sym"][has_symbol]].astype(np.int64)
    number = (space.local_bytes(slot) if slot.size else slot) - base
    mark = "<" if raw.byteorder == "little" else ">"
    for section in np.unique(rows["section"]).tolist():
        content = np.frombuffer(raw.contents[section], np.uint8).copy()
        for size in (4, 8):
            mine = np.flatnonzero((rows["section"] == section) & (rows["width"] == size))
            grid = np.ascontiguousarray(number[mine].astype(f"{mark}i{size}")).view(np.uint8)
            place = rows["byte_off"][mine].astype(np.int64)[:, None] + np.arange(size)
            content[place] = grid.reshape(-1, size)
        out[section] = content.tobytes()
    return out
