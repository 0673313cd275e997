"""Relocations for references that an edit put in.

A call within a section needs none. A call to another section does, and the
address of a function always: that is what a loader knows it by.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import LostRowError, OptionError, UnsupportedError
from bpfpatch.isa import HELPER_IDS, Pseudo, PseudoCall
from bpfpatch.program import INSERTED, AnchoredTable, Program, Remap
from bpfpatch.text import unknown

from .decode import ObjectCode
from .fields import LD_IMM64, entry_sites, is_entry, mark
from .raw import RawElf
from .space import FORM_EXTERNAL, FORM_RELATIVE, RELOC, RELOC_TABLE, SYMBOL_TABLE, CodeSpace
from .symtab import STB_LOCAL, STT_FILE, STT_SECTION

R_BPF_64_64: Final = 1
R_BPF_64_32: Final = 10


def add_relocations(
    raw: RawElf, code: ObjectCode, program: Program, remap: Remap, space: CodeSpace
) -> Program:
    """The program with a row in ``reloc`` for each inserted reference that needs one.

    Raises:
        LostRowError: a row of ``reloc`` that is against code sits on no reference.
        UnsupportedError: the object has no section or symbol for a relocation, or
            an original call across sections has lost its own.
    """
    table = program.tables[RELOC_TABLE]
    sites = entry_sites(program.insns, program.second_slots)
    sites = sites[~mark(program.external, len(program))[sites]]
    _check_relocated(program, table)
    sites = sites[~mark(table.insn, len(program))[sites]]
    if not sites.size:
        return program
    target = sites + 1 + program.insns["imm"][sites]
    is_far = space.of_slot(target) != space.of_slot(sites)
    is_address = program.insns["code"][sites] == LD_IMM64
    is_new = remap.orig[sites] == INSERTED
    torn = sites[is_far & ~is_new]
    if torn.size:
        raise UnsupportedError(
            f"{program.where(int(torn[0]))}: calls another section, but its relocation was detached"
        )
    needy = np.flatnonzero(is_new & (is_far | is_address))
    if not needy.size:
        return program
    rows = np.zeros(needy.size, RELOC)
    rows["form"] = FORM_RELATIVE
    for row, site in enumerate(needy.tolist()):
        slot, to = int(sites[site]), int(target[site])
        rows["section"][row] = _rel_section(raw, code, program, slot)
        rows["sym"][row] = _symbol_for(code, program, space, (slot, to))
        rows["type"][row] = R_BPF_64_64 if is_address[site] else R_BPF_64_32
        rows["src"][row] = Pseudo.NUMBER if is_address[site] else PseudoCall.SUBPROG
    insn = np.concatenate([table.insn, sites[needy].astype(np.int32)])
    by_slot = np.argsort(insn, kind="stable")
    merged = table.with_rows(insn[by_slot], np.concatenate([table.rows, rows])[by_slot])
    return program.with_tables(**{RELOC_TABLE: merged})


def relocation_row(
    code: ObjectCode, section: str, symbol: str, *, is_call: bool = False
) -> NDArray[Any]:
    """A ``reloc`` row, () of `RELOC`, for an instruction of a code section, against a symbol.

    Args:
        code: the object's.
        section: of code, that the instruction is in.
        symbol: by name.
        is_call: whether the instruction is a call, and not an ld_imm64.

    Raises:
        OptionError: the object has no such code section or symbol, or the section
            has no relocations so far.
    """
    target = code.space.names.get(section)
    home = None if target is None else code.rel_section(int(code.space.sections[target]))
    if home is None:
        raise OptionError(
            f"there is no code section {section!r} with a section of relocations; "
            "obj.with_relocatable() gives each one"
        )
    index = code.symbols.find(symbol)
    if index is None:
        raise OptionError(unknown("symbol", symbol, _names(code)))
    row = np.zeros((), RELOC)
    row["section"], row["sym"] = home, index
    row["type"], row["form"] = R_BPF_64_32 if is_call else R_BPF_64_64, FORM_EXTERNAL
    return row


def check_symbol(code: ObjectCode, name: str, *, is_call: bool) -> None:
    """Whether an inserted call, or ld_imm64, can be against a symbol.

    Raises:
        OptionError: the object has none of this name, or it is of another kind.
    """
    index = code.symbols.find(name)
    if index is None:
        if not is_call:
            raise OptionError(unknown("map or variable", name, _names(code)))
        known = [one for one in code.program.subprogs.names if one]
        helpers = (f"bpf_{helper}" for helper in HELPER_IDS)
        what = unknown("function", name, [*_names(code, is_call=True), *known], helpers)
        raise OptionError(f"{what}; a kfunc is declared by with_kfunc() or add_kfunc()")
    section = int(code.symbols.rows["shndx"][index])
    if (code.space.sections == section).any():
        raise OptionError(
            f"{name!r} is in code, and not the name of one function alone; give its node: "
            f"asm(..., {name}=node)"
        )
    if is_call and section:
        raise OptionError(f"{name!r} is no function, but a map or variable; load its address")


def _names(code: ObjectCode, *, is_call: bool = False) -> list[str]:
    """Names of maps, variables and the like; with ``is_call`` of what something else defines."""
    table = code.symbols
    shndx = table.rows["shndx"]
    is_fine = shndx == 0 if is_call else table.type != STT_SECTION
    is_fine = is_fine & (table.type != STT_FILE) & ~np.isin(shndx, code.space.sections)
    return [name for index in np.flatnonzero(is_fine).tolist() if (name := table.name(index))]


def _check_relocated(program: Program, table: AnchoredTable) -> None:
    inside = np.flatnonzero(table.rows["form"] != FORM_EXTERNAL)
    at = program.insns[table.insn[inside]]
    is_fine = is_entry(at)
    if is_fine.all():
        return
    row = int(inside[np.argmin(is_fine)])
    raise LostRowError(
        program.where(int(table.insn[row])),
        RELOC_TABLE,
        row,
        "has a relocation against code, but is neither a call nor a function's "
        "address; detach the row, or keep the instruction",
    )


def _rel_section(raw: RawElf, code: ObjectCode, program: Program, slot: int) -> int:
    index = int(np.searchsorted(program.section_bounds, slot, side="right")) - 1
    target = int(code.space.sections[index])
    home = code.rel_section(target)
    if home is not None:
        return home
    raise UnsupportedError(
        f"{program.where(slot)}: needs a relocation, and the object has no section of relocations "
        f"for {raw.names[target]}; refer to a function of the same section"
    )


def _symbol_for(
    code: ObjectCode, program: Program, space: CodeSpace, reference: tuple[int, int]
) -> int:
    """A global function's symbol at the target; else its section's; else any at the target."""
    slot, target = reference
    home = int(code.space.sections[int(space.of_slot(target))])
    symbols, table = code.symbols, program.tables[SYMBOL_TABLE]
    at_target = table.rows["sym"][table.insn == target].astype(np.int64)
    is_global = symbols.is_function[at_target] & (symbols.bind[at_target] != STB_LOCAL)
    of_section = (symbols.rows["shndx"] == home) & (symbols.type == STT_SECTION)
    for found in (at_target[is_global], np.flatnonzero(of_section), at_target):
        if found.size:
            return int(found[0])
    raise UnsupportedError(
        f"{program.where(slot)}: refers to {program.where(target)}, which no symbol of the object "
        "names; give that function a symbol"
    )
