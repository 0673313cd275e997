"""Put rewritten code back into its object, and make all that depends on it agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import (
    FormatError,
    OptionError,
    SlotError,
    StaleDebugError,
    UnsupportedError,
)
from bpfpatch.program import LANDING_PAD, Program, Remap
from bpfpatch.program.anchors import lost_row
from bpfpatch.program.types import REPLACED

from .addresses import is_debug_name, write_addresses
from .cleanup import CLEANUP, write_cleanup
from .decode import ObjectCode, is_text_name
from .extrecords import KINDS, write_relocations, write_tables
from .fields import CALLX, entry_sites, restore_fields
from .newrelocs import add_relocations
from .raw import REL, SHF_EXECINSTR, SHT_PROGBITS, SHT_REL, SHT_RELA, Buffer, RawElf
from .renumber import Removal, renumber
from .space import (
    ADDRESS_TABLE,
    INSN_SIZE,
    JUMP_TABLE,
    LABEL_TABLE,
    RELOC_TABLE,
    SYMBOL_TABLE,
    CodeSpace,
)
from .symtab import STB_LOCAL, STT_FILE, STT_SECTION, SymbolTable, is_defined

if TYPE_CHECKING:
    from .dwarf import DwarfUpdate

Dwarf = Literal["update", "drop", "refuse"]

R_BPF_64_64: Final = 1
R_BPF_64_32: Final = 10


class RewrittenFile(Protocol):
    """What linearizing a patch list gives."""

    @property
    def program(self) -> Program:
        """The new program, with all tables of the old one."""

    @property
    def remap(self) -> Remap:
        """From the object's code to the new program."""


def rewrite(
    raw: RawElf, code: ObjectCode, new: RewrittenFile, dwarf: Dwarf
) -> tuple[RawElf, tuple[str, ...]]:
    """The object with other code.

    Args:
        raw: the object.
        code: what `read_code` made of it.
        new: the rewritten code.
        dwarf: what to do with DWARF that goes stale since code has moved.

    Returns:
        The new object, and sentences for the user about what it lost.

    Raises:
        OptionError: ``new`` was not made from this object's code.
        StaleDebugError: DWARF would go stale, and ``dwarf`` is "refuse".
        LostRowError: an address in data stands for code that is gone.
        UnsupportedError: the object has no place for what the new code needs.
    """
    program, remap = new.program, new.remap
    _check_origin(code, program, remap)
    has_moved = _has_moved(remap)
    if has_moved:
        _check_movable(raw, code)
    _check_addresses(code, program, remap)
    space = _new_space(code.space, program, remap)
    symbols, is_gone = _symbols(code, program, space)
    program = add_relocations(raw, code, program, remap, space)
    _check_shared(code, program, remap)
    value = symbols.rows["value"]
    changed: dict[int, Buffer] = dict(write_addresses(raw, program, space, value))
    changed |= write_cleanup(raw, program, space, value)
    changed |= _code(raw, code, program, space, value)
    rows = {rel.section: rel.rows for rel in code.rels} | _relocations(code, program, space)
    records, record_rows = _records(raw, code, program, space)
    changed, rows = changed | records, rows | record_rows

    stale = _stale_sections(raw) if has_moved else []
    stale, notices, updated = _debug(raw, code, stale, dwarf, symbols, is_gone, space, remap)
    if updated is not None:
        changed |= updated.contents
        rows |= updated.rows
    is_gone |= np.isin(symbols.rows["shndx"], stale)
    rows = {section: rel for section, rel in rows.items() if section not in stale}
    out = renumber(raw, symbols, rows, changed, Removal(stale, is_gone))
    return out, notices


def _check_origin(code: ObjectCode, program: Program, remap: Remap) -> None:
    old = code.program
    if remap.own.size != len(old) or remap.orig.size != len(program):
        raise OptionError(
            f"the rewritten code goes from {remap.own.size} slots to {remap.orig.size}; it does "
            f"not fit an object of {len(old)} slots and a program of {len(program)}"
        )
    if program.sections != old.sections:
        raise OptionError(
            f"the rewritten code has sections {program.sections}, the object {old.sections}"
        )
    missing = sorted(set(old.tables) - set(program.tables))
    if missing:
        raise OptionError(
            f"the rewritten program has no table {missing[0]!r}; linearize a patch list of the "
            "object's own code, and detach rows rather than tables"
        )


def _has_moved(remap: Remap) -> bool:
    """Whether an instruction stands at another slot than before, or is gone."""
    n_old = remap.own.size
    if remap.orig.size != n_old:
        return True
    slots = np.arange(n_old)
    return not bool(((remap.own == slots) | (remap.own == REPLACED)).all())


def _check_movable(raw: RawElf, code: ObjectCode) -> None:
    if code.loose.size:
        raise UnsupportedError(
            f"entry {int(code.loose[0]) // INSN_SIZE} of .jumptables may belong to more than one "
            "code section, so no code can be moved; give each table a symbol of its size"
        )
    if code.btf is None and raw.find(".BTF.ext") is not None:
        raise UnsupportedError(
            "the object has .BTF.ext but no .BTF, without which its records cannot be moved; strip "
            "both or none"
        )
    if code.opaque:
        raise UnsupportedError(
            f"section {code.opaque[0]} describes the code in a way that is not understood, so "
            "code cannot be "
            f"moved; remove it (llvm-objcopy --remove-section={code.opaque[0]})"
        )
    if code.is_stripped:
        raise UnsupportedError(
            "the object was stripped of symbols and relocations, which said where its calls go; "
            "strip with -g (--strip-debug) instead of --strip-all"
        )


def _check_addresses(code: ObjectCode, program: Program, remap: Remap) -> None:
    """Raise if an address in data stands for an instruction that is gone."""
    for name in (ADDRESS_TABLE, JUMP_TABLE, CLEANUP, LANDING_PAD):
        if name not in code.program.tables:
            continue
        old = code.program.tables[name]
        if len(program.tables[name]) == len(old):
            continue
        lost = np.flatnonzero(remap.places(old.anchor)[old.insn] < 0)
        if not lost.size:
            raise OptionError(f"rows of {name} were detached, but their data has no other place")
        row = int(lost[0])
        error = SlotError(
            code.program.where(int(old.insn[row])),
            f"was deleted and no instruction follows it, but row {row} of {name} needs it",
        )
        raise lost_row(name, row, error)


def _check_shared(code: ObjectCode, program: Program, remap: Remap) -> None:
    """Raise if a new relocation is in code that is several programs.

    Source: libbpf v1.5, src/libbpf.c, bpf_object__collect_prog_relos(): each symbol makes a
    program with a copy of the code, and a relocation is applied to one of them.
    """
    table = program.tables[RELOC_TABLE]
    new = table.insn[remap.orig[table.insn] < 0]
    if not new.size:
        return
    symbols = program.tables[SYMBOL_TABLE]
    sym = symbols.rows["sym"].astype(np.int64)
    is_program = code.symbols.is_function[sym] & (code.symbols.bind[sym] != STB_LOCAL)
    is_text = np.array([is_text_name(name) for name in program.sections], bool)
    owner = program.subprogs.of(symbols.insn)
    is_program &= ~is_text[program.subprogs.section[owner]]
    number, count = np.unique(owner[is_program], return_counts=True)
    shared = np.isin(program.subprogs.of(new), number[count > 1])
    if not shared.any():
        return
    slot = int(new[np.argmax(shared)])
    mine = is_program & (owner == program.subprogs.of(np.array([slot], np.int32))[0])
    names = ", ".join(code.symbols.name(int(one)) for one in sym[mine])
    raise UnsupportedError(
        f"{program.where(slot)}: needs a relocation, but {names} are programs of the same code, of "
        "which libbpf relocates only one; give each a function of its own"
    )


def _new_space(space: CodeSpace, program: Program, remap: Remap) -> CodeSpace:
    if len(program) * INSN_SIZE >= 1 << 31:
        raise UnsupportedError(f"{len(program)} slots of code are more than imm fields can span")
    starts = program.section_bounds.astype(np.int64)
    padding = space.padding
    if padding is not None:
        padding = padding.moved(remap.bound, starts)
    return replace(space, starts=starts, padding=padding)


def _symbols(
    code: ObjectCode, program: Program, space: CodeSpace
) -> tuple[SymbolTable, NDArray[np.bool_]]:
    """Symbols with new values and sizes, and which of them have lost their code."""
    symbols = code.symbols
    rows = symbols.rows.copy()
    is_gone = np.zeros(len(rows), bool)
    if not len(rows):
        return symbols, is_gone
    home = code.space.code_index[np.where(is_defined(rows), rows["shndx"], 0)]
    is_ours = (home >= 0) & (symbols.type != STT_SECTION) & (symbols.type != STT_FILE)
    ours = np.flatnonzero(is_ours)
    is_gone[ours] = True
    at_end = ours[rows["value"][ours] == code.space.n_bytes(home[ours]).astype(np.uint64)]
    rows["value"][at_end] = space.n_bytes(home[at_end])
    is_gone[at_end] = False
    for name in (SYMBOL_TABLE, LABEL_TABLE):
        table = program.tables[name]
        sym, is_sized = table.rows["sym"], table.rows["is_sized"]
        start = table.insn.astype(np.int64)
        end = start if table.end is None else table.end.astype(np.int64)
        if not sym.size:
            continue
        rows["value"][sym] = space.local_bytes(start)
        rows["size"][sym] = np.where(is_sized, space.span_bytes(start, end), 0)
        is_gone[sym] = False
    return replace(symbols, rows=rows), is_gone


def _code(
    raw: RawElf, code: ObjectCode, program: Program, space: CodeSpace, value: NDArray[Any]
) -> dict[int, Buffer]:
    insns = program.insns.copy()
    if code.has_old_calls:
        is_callx = (insns["code"] == CALLX) & ~program.second_slots
        insns["imm"][is_callx] = insns["regs"][is_callx] & 0xF
        insns["regs"][is_callx] = 0
    table = program.tables[RELOC_TABLE]
    restore_fields(insns, table, space, value).put_into(insns)
    starts = space.starts.tolist()
    if space.padding is not None:
        _part(insns, program, space)
        insns, starts = space.padding.put_between(insns), space.padding.starts.tolist()
    return {
        section: isa.to_bytes(insns[starts[index] : starts[index + 1]], raw.byteorder)
        for index, section in enumerate(space.sections.tolist())
    }


def _part(insns: NDArray[Any], program: Program, space: CodeSpace) -> None:
    """Put the padding into distances that the file has in full, in place."""
    has_row = np.zeros(len(program), bool)
    has_row[program.tables[RELOC_TABLE].insn] = True
    sites = entry_sites(program.insns, program.second_slots)
    sites = sites[~has_row[sites]]
    target = sites + 1 + program.insns["imm"][sites].astype(np.int64)
    words = (space.local_bytes(target) - space.local_bytes(sites)) // INSN_SIZE
    insns["imm"][sites] = words - 1


def _relocations(code: ObjectCode, program: Program, space: CodeSpace) -> dict[int, NDArray[Any]]:
    """Relocations of code, by section, in the order of the table."""
    table = program.tables[RELOC_TABLE]
    byte_off = space.local_bytes(table.insn)
    out = {}
    for rel in code.rels:
        if code.space.code_index[rel.target] < 0:
            continue
        mine = table.rows["section"] == rel.section
        rows = np.zeros(int(np.count_nonzero(mine)), REL["little"])
        rows["byte_off"] = byte_off[mine]
        rows["type"], rows["sym"] = table.rows["type"][mine], table.rows["sym"][mine]
        out[rel.section] = rows
    return out


def _records(
    raw: RawElf, code: ObjectCode, program: Program, space: CodeSpace
) -> tuple[dict[int, Buffer], dict[int, NDArray[Any]]]:
    """.BTF.ext, and the relocations on its records, by section."""
    section = raw.find(".BTF.ext")
    if code.ext is None or section is None:
        return {}, {}
    old = bytes(raw.contents[section])
    ext = write_tables(raw, code.ext, space, {kind: program.tables[kind] for kind in KINDS})
    new = ext.to_bytes()
    rows = {
        rel.section: write_relocations((code.ext, old), (ext, new), rel.rows)
        for rel in code.rels
        if rel.target == section
    }
    return {section: new}, rows


def _debug(
    raw: RawElf,
    code: ObjectCode,
    stale: list[int],
    dwarf: Dwarf,
    symbols: SymbolTable,
    is_gone: NDArray[np.bool_],
    space: CodeSpace,
    remap: Remap,
) -> tuple[list[int], tuple[str, ...], DwarfUpdate | None]:
    """What of DWARF leaves, what to say about it, and what of it has changed."""
    why = ""
    if dwarf == "update" and stale:
        # Half of the objects have none, and it is a dozen modules.
        from .dwarf import update_dwarf  # noqa: PLC0415
        from .dwarf.move import CodeMove  # noqa: PLC0415
        from .dwarf.sections import Names, code_of_symbol  # noqa: PLC0415

        debug = [index for index in stale if int(raw.shdrs["type"][index]) == SHT_PROGBITS]
        value, homes = symbols.rows["value"], code.space.code_index
        names = Names.of(code.symbols, value, is_gone, code_of_symbol(code.symbols, homes))
        try:
            move = CodeMove(code.space, space, remap)
            updated = update_dwarf(raw, code.rels, debug, names, move)
        except (FormatError, UnsupportedError) as error:
            why = f": {error}"
        else:
            told = f"updated DWARF: {', '.join(updated.names)}" if updated.names else ""
            return [], (told,) if told else (), updated
    return stale, _stale_notice(stale, dwarf, why), None


def _stale_sections(raw: RawElf) -> list[int]:
    """DWARF, and the relocations of it."""
    types, infos = raw.shdrs["type"].tolist(), raw.shdrs["info"].tolist()
    # Whatever its name, a table that the object needs to be read is not DWARF.
    is_content = (raw.shdrs["type"] == SHT_PROGBITS) & (raw.shdrs["flags"] & SHF_EXECINSTR == 0)
    named = {index for index, name in enumerate(raw.names) if is_debug_name(name)}
    debug = named & set(np.flatnonzero(is_content).tolist())
    rels = {
        index
        for index, kind in enumerate(types)
        if kind in (SHT_REL, SHT_RELA) and infos[index] in debug
    }
    return sorted(debug | rels)


def _stale_notice(stale: Sequence[int], dwarf: Dwarf, why: str) -> tuple[str, ...]:
    if not stale:
        return ()
    what = f"{len(stale)} DWARF section{'s' if len(stale) > 1 else ''}"
    if dwarf == "refuse":
        raise StaleDebugError(
            f"{what} would be stale since the code moved; allow them to be dropped, or strip them "
            "first (llvm-strip -g)"
        )
    return (f"removed {what}, stale since the code moved{why}",)
