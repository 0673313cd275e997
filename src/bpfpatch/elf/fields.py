"""Relocated reference fields: from what the file holds to flat distances, and back.

In an object, a call or a function address is split in two: a relocation names
a symbol, and the instruction's field holds the rest, in one of the forms that
`bpfpatch.elf.space` lists. In a `Program` the field holds the whole distance.

Source: linux v6.1, Documentation/bpf/llvm_reloc.rst; tools/lib/bpf/libbpf.c,
bpf_program__record_reloc() and bpf_object__reloc_code().
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError
from bpfpatch.isa import Pseudo, PseudoCall
from bpfpatch.program import AnchoredTable

from .parts import ObjectParts
from .space import (
    FORM_ABSOLUTE,
    FORM_EXTERNAL,
    FORM_RELATIVE,
    INSN_SIZE,
    RELOC,
    CodeSpace,
    Slots64,
)
from .symtab import STT_SECTION, RelSection

CALL: Final = 0x85
CALLX: Final = 0x8D
MAX_REGISTER: Final = 10
LD_IMM64: Final = 0x18

_CLASS_JMP: Final = 5
_CLASS_JMP32: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class CodeRelocs:
    """The relocations of all code sections, in the order of the file.

    Attributes:
        slot: (n,) slot that each applies to.
        rows: (n,) `RELOC`.
        code: (n,) code section of the symbol, or -1 where it is in none.
    """

    slot: Slots64
    rows: NDArray[Any]
    code: Slots64

    @property
    def is_internal(self) -> NDArray[np.bool_]:
        """(n,) whether the symbol is in code of this object."""
        return np.asarray(self.code >= 0, np.bool_)


def mark(slots: Any, n_slots: int) -> NDArray[np.bool_]:
    """(n_slots,) true at these slots."""
    out = np.zeros(n_slots, np.bool_)
    out[slots] = True
    return out


def is_entry(insns: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) calls of subprograms and addresses of functions; second slots may look like one."""
    code, src = insns["code"], insns["regs"] >> 4
    is_call = (code == CALL) & (src == PseudoCall.SUBPROG)
    out: NDArray[np.bool_] = is_call | (code == LD_IMM64) & (src == Pseudo.FUNC)
    return out


def entry_sites(insns: NDArray[Any], second: NDArray[np.bool_]) -> Slots64:
    """Slots of all calls of subprograms and of all function addresses."""
    return np.flatnonzero(is_entry(insns) & ~second)


def gather(parts: ObjectParts) -> CodeRelocs:
    """Collect the relocations that apply to code, with their forms still open.

    Raises:
        FormatError: one lies outside of its section or within an instruction.
    """
    slots, rows = [np.zeros(0, np.int64)], [np.zeros(0, RELOC)]
    for rel in parts.rels:
        code = int(parts.space.code_index[rel.target])
        if code < 0:
            continue
        _check_places(parts, rel, code)
        row = np.zeros(len(rel.rows), RELOC)
        row["section"] = rel.section
        row["sym"], row["type"] = rel.rows["sym"], rel.rows["type"]
        rows.append(row)
        slots.append(parts.space.slot(code, rel.rows["byte_off"].astype(np.int64)))
    all_rows = np.concatenate(rows)
    has_symbols = len(parts.symbols) > 0
    codes = (
        parts.code_of_symbol[all_rows["sym"]]
        if has_symbols
        else np.full(len(all_rows), -1, np.int64)
    )
    return CodeRelocs(np.concatenate(slots), all_rows, codes)


def _check_places(parts: ObjectParts, rel: RelSection, code: int) -> None:
    byte_off = rel.rows["byte_off"]
    n_bytes = int(parts.space.n_bytes(code))
    is_bad = ~parts.space.is_slot(code, np.minimum(byte_off, np.uint64(n_bytes)))
    if not is_bad.any():
        return
    index = int(np.argmax(is_bad))
    names = parts.raw.names
    raise FormatError(
        f"relocation {index} of {names[rel.section]} applies to byte {int(byte_off[index]):#x} of "
        f"{names[rel.target]}, where no instruction starts",
        parts.raw.byte_off(rel.section, index * rel.rows.itemsize),
    )


def canonicalize(parts: ObjectParts, relocs: CodeRelocs, insns: NDArray[Any]) -> CodeRelocs:
    """Turn the fields of all relocated references into flat distances.

    In plain Python, for each relocation against code in the usual form::

        if insn is a call:
            target = section_start + symbol.value / 8 + insn.imm + 1
        else:
            target = section_start + (symbol.value + insn.imm) / 8
        insn.imm = target - slot - 1

    Args:
        parts: the object's.
        relocs: what `gather` returned.
        insns: (n,) a copy of the instructions, which is written to.

    Returns:
        The relocations with their forms and registers.

    Raises:
        FormatError: a relocation against code is on no call and no ld_imm64, or
            its target is not an instruction of its section.
    """
    _check_sites(parts, relocs)
    inside = np.flatnonzero(relocs.is_internal)
    if not inside.size:
        return relocs
    rows = relocs.rows.copy()
    fields = _Fields.of(parts, relocs, inside)
    form, local = _targets(parts, fields)
    rows["form"][inside] = form
    rows["src"][inside] = insns["regs"][fields.slot] >> 4
    insns["imm"][fields.slot] = parts.space.slot(fields.code, local) - fields.slot - 1
    address = fields.slot[~fields.is_call]
    insns["regs"][address] = insns["regs"][address] & 0xF | Pseudo.FUNC << 4
    return replace(relocs, rows=rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Fields:
    """The relocated references against code, (k,) each."""

    slot: Slots64
    code: Slots64
    is_call: NDArray[np.bool_]
    is_named: NDArray[np.bool_]
    value: Slots64
    imm: Slots64

    @classmethod
    def of(cls, parts: ObjectParts, relocs: CodeRelocs, inside: NDArray[np.intp]) -> _Fields:
        slot, sym = relocs.slot[inside], relocs.rows["sym"][inside]
        at = parts.insns[slot]
        return cls(
            slot,
            relocs.code[inside],
            at["code"] == CALL,
            parts.symbols.type[sym] != STT_SECTION,
            parts.symbols.rows["value"][sym].astype(np.int64),
            at["imm"].astype(np.int64),
        )


def _check_sites(parts: ObjectParts, relocs: CodeRelocs) -> None:
    slot = relocs.slot
    at = parts.insns[slot]
    src, kind = at["regs"] >> 4, at["code"] & 7
    is_address = (at["code"] == LD_IMM64) & ((src == Pseudo.NUMBER) | (src == Pseudo.FUNC))
    takes_code = is_address | (at["code"] == CALL) & (src == PseudoCall.SUBPROG)
    is_jump = ((kind == _CLASS_JMP) | (kind == _CLASS_JMP32)) & (at["code"] != CALL)
    is_bad = parts.second[slot] | is_jump | (relocs.is_internal & ~takes_code)
    is_bad |= relocs.is_internal & _are_shared(slot)
    if not is_bad.any():
        return
    row = int(np.argmax(is_bad))
    raise FormatError(
        f"the relocation against symbol {int(relocs.rows['sym'][row])} cannot apply to "
        f"`{parts.text(int(slot[row]))}`",
        parts.file_off(int(slot[row])),
    )


def _are_shared(slot: Slots64) -> NDArray[np.bool_]:
    """(n,) whether another relocation sits on the same slot: one field cannot hold two targets."""
    out = np.zeros(slot.size, np.bool_)
    if slot.size > 1 and not (slot[1:] > slot[:-1]).all():
        order = np.argsort(slot, kind="stable")
        same = slot[order][1:] == slot[order][:-1]
        out[order[1:]] |= same
        out[order[:-1]] |= same
    return out


def _targets(parts: ObjectParts, fields: _Fields) -> tuple[NDArray[np.uint8], Slots64]:
    """Where the fields lead.

    Nothing in the object names their form. A field that is just the value of
    its symbol is absolute: read as relative it would lead somewhere far beyond
    the symbol that it names.

    Returns:
        (k,) forms, and (k,) targets in bytes from the start of their section.
    """
    relative = fields.value + np.where(fields.is_call, (fields.imm + 1) * INSN_SIZE, fields.imm)
    absolute = fields.imm + fields.is_call
    is_whole = fields.is_named & (absolute == fields.value) & (fields.value != 0)
    local = np.where(is_whole, absolute, relative)
    is_fine = _are_starts(parts, fields.code, local)
    if is_fine.all():
        return np.where(is_whole, FORM_ABSOLUTE, FORM_RELATIVE).astype(np.uint8), local
    row = int(np.argmin(is_fine))
    slot, section = int(fields.slot[row]), int(parts.space.sections[fields.code[row]])
    raise FormatError(
        f"`{parts.text(slot)}` refers to byte {int(local[row]):#x} of "
        f"{parts.raw.names[section]}, where no function can start",
        parts.file_off(slot),
    )


def _are_starts(parts: ObjectParts, code: Slots64, local: Slots64) -> NDArray[np.bool_]:
    """Which bytes of a section may be a function's start: none within a function symbol's range."""
    out = parts.space.is_slot(code, local)
    target = parts.space.slot(code, np.where(out, local, 0))
    out[out] = ~parts.second[target[out]]
    start, end = parts.functions
    if start.size:
        index = np.maximum(np.searchsorted(start, target, side="right") - 1, 0)
        out &= ~((start[index] < target) & (target < end[index]))
    return np.asarray(out, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class FileFields:
    """What the file holds in relocated reference fields, (k,) each."""

    slot: NDArray[np.int32]
    imm: Slots64
    regs: NDArray[np.uint8]

    def put_into(self, insns: NDArray[Any]) -> None:
        """Write the fields, in place."""
        insns["imm"][self.slot] = self.imm
        insns["regs"][self.slot] = self.regs


def restore_fields(
    insns: NDArray[Any], table: AnchoredTable, space: CodeSpace, value: NDArray[Any]
) -> FileFields:
    """The inverse of `canonicalize`.

    Args:
        insns: (n,) with flat distances.
        table: the ``reloc`` table of these instructions.
        space: their code sections.
        value: (n_symbols,) values of the symbols, as they will be written.
    """
    inside = np.flatnonzero(table.rows["form"] != FORM_EXTERNAL)
    slot, rows = table.insn[inside], table.rows[inside]
    at = insns[slot]
    local = space.local_bytes(slot + 1 + at["imm"].astype(np.int64))
    is_relative = rows["form"] == FORM_RELATIVE
    if is_relative.any():
        local = local - np.where(is_relative, value[rows["sym"]].astype(np.int64), 0)
    is_call = at["code"] == CALL
    imm = np.where(is_call & is_relative, local // INSN_SIZE, local) - is_call
    regs = np.where(is_call, at["regs"], at["regs"] & 0xF | rows["src"] << 4)
    return FileFields(slot, imm, regs)
