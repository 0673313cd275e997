"""From the container to the program: all code of an object, and all that is tied to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf, BtfExt
from bpfpatch.btf.callbacks import exception_callbacks
from bpfpatch.errors import FormatError
from bpfpatch.program import Anchor, AnchoredTable, OnReplace, Program, Subprogs
from bpfpatch.program.refs import References, read_references

from .addresses import opaque_sections, read_addresses, write_addresses
from .cleanup import CLEANUP_SECTION, read_cleanup
from .extrecords import read_tables
from .fields import (
    CALLX,
    MAX_REGISTER,
    CodeRelocs,
    canonicalize,
    entry_sites,
    gather,
    mark,
    restore_fields,
)
from .parts import ObjectParts, read_parts
from .raw import RawElf
from .space import (
    ADDRESS_TABLE,
    FORM_EXTERNAL,
    INSN_SIZE,
    LABEL_TABLE,
    RELOC_TABLE,
    SYMBOL,
    SYMBOL_TABLE,
    CodeSpace,
    Slots64,
)
from .symtab import STB_LOCAL, STT_FILE, STT_SECTION, RelSection, SymbolTable


@dataclass(frozen=True, slots=True, eq=False)
class ObjectCode:
    """The code of an object, with what it takes to write it back.

    Attributes:
        program: all code sections as one program.
        space: which sections those are.
        symbols: the symbol table.
        rels: all relocation sections.
        btf: types and strings, if the object has them.
        ext: records of .BTF.ext, if the object has them.
        loose: entries of .jumptables that belong to no one code section.
        is_stripped: whether calls are ``external`` since the symbols and relocations that
            would say where they go were stripped off.
        has_old_calls: whether the file has the register of each callx in imm.
        opaque: names of sections that say something of the code that is not understood.
    """

    program: Program
    space: CodeSpace
    symbols: SymbolTable
    rels: tuple[RelSection, ...]
    btf: Btf | None
    ext: BtfExt | None
    loose: Slots64
    is_stripped: bool
    has_old_calls: bool = False
    opaque: tuple[str, ...] = ()
    _rel_of: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def rel_section(self, target: int) -> int | None:
        """The first section of relocations of a section, both by index; None without."""
        if not self._rel_of:
            self._rel_of.update((rel.target, rel.section) for rel in reversed(self.rels))
        return self._rel_of.get(target)


def read_code(raw: RawElf, btf: Btf | None, ext: BtfExt | None) -> ObjectCode:
    """Decode an object's code.

    Raises:
        FormatError: something in the object does not add up; the message says what.
    """
    parts = read_parts(raw)
    insns = parts.insns.copy()
    relocs = gather(parts)
    _join(parts, relocs, insns)
    has_old_calls = _take_old_calls(insns, parts.second)
    relocs = canonicalize(parts, relocs, insns)
    is_external = relocs.rows["form"] == FORM_EXTERNAL
    external = mark(relocs.slot[is_external], len(insns))
    sites = entry_sites(insns, parts.second)
    sites = sites[~external[sites]]
    is_stripped = not len(parts.symbols) and not _make_sense(parts, insns, sites)
    if is_stripped:
        external[sites] = True
        sites = sites[:0]

    space, labels = parts.space, _SymbolSites.of(parts)
    starts = _starts(parts, relocs, insns, sites, labels)
    addresses = read_addresses(parts, relocs)
    tables = _reloc_table(relocs) | labels.tables(relocs, starts) | addresses.tables(starts)
    cleanup = read_cleanup(parts)
    tables |= cleanup or {}
    if ext is not None:
        with located(raw, ".BTF.ext"):
            tables |= read_tables(ext, space, parts.second)
    entered = np.concatenate([tables[ADDRESS_TABLE].insn, addresses.pointed_at])
    program = Program(
        insns=insns,
        subprogs=Subprogs(
            starts.astype(np.int32),
            labels.names(starts),
            space.of_slot(starts).astype(np.int32),
            _roots(parts, labels, starts, entered, btf),
        ),
        sections=tuple(raw.names[section] for section in space.sections.tolist()),
        tables=tables,
        external=np.flatnonzero(external).astype(np.int32),
        strings=b"" if btf is None else btf.string_bytes,
    )
    _check_round_trip(parts, program)
    return ObjectCode(
        program,
        space,
        parts.symbols,
        parts.rels,
        btf,
        ext,
        addresses.loose,
        is_stripped,
        has_old_calls,
        opaque_sections(parts) + (() if cleanup is not None else (CLEANUP_SECTION,)),
    )


def _take_old_calls(insns: NDArray[Any], second: NDArray[np.bool_]) -> bool:
    """Put the register of each callx where it belongs, in place; whether it was in imm before.

    Source: llvm 18, BPFInstrInfo.td, JALX, which has it there; llvm 19 puts it into dst.
    """
    is_callx = (insns["code"] == CALLX) & ~second
    if not is_callx.any():
        return False
    is_old = is_callx & (insns["regs"] == 0) & (insns["off"] == 0)
    is_old &= (insns["imm"] > 0) & (insns["imm"] <= MAX_REGISTER)
    if (is_callx & ~is_old & (insns["regs"] != 0)).any():
        return False  # of two kinds in one object none can be told from the other on the way back
    insns["regs"][is_old] = insns["imm"][is_old]
    insns["imm"][is_old] = 0
    return bool(is_old.any())


def _join(parts: ObjectParts, relocs: CodeRelocs, insns: NDArray[Any]) -> None:
    """Take the padding out of distances that the file has in full, in place."""
    space = parts.space
    if space.padding is None:
        return
    sites = entry_sites(insns, parts.second)
    sites = sites[~mark(relocs.slot, len(insns))[sites]]
    code = space.of_slot(sites)
    local = space.local_bytes(sites + 1) + insns["imm"][sites].astype(np.int64) * INSN_SIZE
    is_bad = ~space.is_slot(code, local)
    if is_bad.any():
        slot = int(sites[np.argmax(is_bad)])
        raise FormatError(
            f"`{parts.text(slot)}` refers to no instruction of its section "
            f"{parts.section_name(slot)}",
            parts.file_off(slot),
        )
    insns["imm"][sites] = space.slot(code, local) - sites - 1


def _roots(
    parts: ObjectParts, labels: _SymbolSites, starts: Slots64, entered: Slots64, btf: Btf | None
) -> NDArray[np.bool_]:
    """(m,) subprogs that are entered from outside of the code.

    They are programs, which are all global functions outside of .text, those that
    data points at, and exception callbacks, which only .BTF names. What no symbol
    names may be anything, and so a program as well.

    Source: libbpf v1.5, src/libbpf.c, bpf_object__add_programs() and
    bpf_prog_collect_exception_cb().
    """
    sections = [parts.raw.names[index] for index in parts.space.sections.tolist()]
    is_program = np.array([not is_text_name(name) for name in sections], np.bool_)
    with located(parts.raw, ".BTF"):
        names = set() if btf is None else set(exception_callbacks(btf).values())
    called_back = np.zeros(0, np.int64)
    if names:
        sym = [index for index in range(len(parts.symbols)) if parts.symbols.name(index) in names]
        sym = [index for index in sym if parts.code_of_symbol[index] >= 0]
        value = parts.symbols.rows["value"][sym].astype(np.int64)
        called_back = parts.space.slot(parts.code_of_symbol[sym], value)
    is_entered = np.isin(starts, np.concatenate([entered, called_back]))
    in_program = is_program[parts.space.of_slot(starts)] & ~_are_helpers(labels, starts)
    return np.asarray(in_program | is_entered, np.bool_)


def _are_helpers(labels: _SymbolSites, starts: Slots64) -> NDArray[np.bool_]:
    """(m,) functions with local symbols alone, which no loader finds by themselves."""
    is_local = labels.symbols.bind[labels.sym] == STB_LOCAL
    with_local = labels.slot[labels.is_func & is_local]
    return np.asarray(
        np.isin(starts, with_local) & ~np.isin(starts, labels.slot[~is_local]), np.bool_
    )


def is_text_name(section: str) -> bool:
    """Whether a section of this name holds functions that are not programs by themselves.

    Compilers make ``.text.NAME`` with -ffunction-sections.
    """
    return section == ".text" or section.startswith(".text.")


@contextmanager
def located(raw: RawElf, section: str) -> Iterator[None]:
    """Turn places in a section's content into places in the file."""
    try:
        yield
    except FormatError as error:
        index = raw.find(section)
        byte_off = raw.byte_off(index or 0, error.byte_off or 0)
        raise FormatError(f"{section}: {error.what}", byte_off) from error


def read_btf(raw: RawElf) -> tuple[Btf | None, BtfExt | None]:
    """The object's .BTF and .BTF.ext.

    Raises:
        FormatError: one of them is broken.
    """
    section, ext_section = raw.find(".BTF"), raw.find(".BTF.ext")
    if section is None:
        return None, None
    with located(raw, ".BTF"):
        btf = Btf.parse(bytes(raw.contents[section]), raw.byteorder)
    if ext_section is None:
        return btf, None
    with located(raw, ".BTF.ext"):
        return btf, BtfExt.parse(bytes(raw.contents[ext_section]), btf)


def _make_sense(parts: ObjectParts, insns: NDArray[Any], sites: Slots64) -> bool:
    """Whether the calls of an object without symbols can be meant as they stand.

    They can if each one's target is the start of its section or stands after
    an instruction that does not go on to it.
    """
    target = sites + 1 + insns["imm"][sites]
    if ((target < 0) | (target >= len(insns))).any():
        return False
    is_start = np.isin(target, parts.space.starts)
    before = np.maximum(target - 1, 0)
    is_start |= ~isa.falls_through(insns)[before] & ~parts.second[before]
    is_near = parts.space.of_slot(target) == parts.space.of_slot(sites)
    return bool((is_start & is_near).all())


def _reloc_table(relocs: CodeRelocs) -> dict[str, AnchoredTable]:
    table = AnchoredTable(
        relocs.slot.astype(np.int32), relocs.rows, Anchor.OWN, on_replace=OnReplace.ERROR
    )
    return {RELOC_TABLE: table}


@dataclass(frozen=True, slots=True, eq=False)
class _SymbolSites:
    """The symbols that stand on an instruction: neither sections nor files, nor at a section's end.

    Attributes:
        symbols: all symbols.
        sym: (k,) their indices.
        slot: (k,) where they stand.
        end: (k,) the slot after what they cover.
    """

    symbols: SymbolTable
    sym: Slots64
    slot: Slots64
    end: Slots64

    @classmethod
    def of(cls, parts: ObjectParts) -> _SymbolSites:
        symbols, space = parts.symbols, parts.space
        in_code = np.flatnonzero((parts.code_of_symbol >= 0) & (symbols.type != STT_FILE))
        rows, code = symbols.rows[in_code], parts.code_of_symbol[in_code]
        n_bytes = space.n_bytes(code).astype(np.uint64)
        value, size = rows["value"], rows["size"]
        is_section = symbols.type[in_code] == STT_SECTION
        is_bad = (value > n_bytes) | (value % INSN_SIZE != 0) | (is_section & (value != 0))
        is_long = (size > n_bytes - np.minimum(value, n_bytes)) | (size % INSN_SIZE != 0)
        is_bad |= ~is_section & is_long
        placed = ~is_section & (value < n_bytes) & ~is_bad
        slot = space.slot(code, np.where(placed, value, 0).astype(np.int64))
        is_bad[placed] |= parts.second[slot[placed]]
        if is_bad.any():
            row = int(np.argmax(is_bad))
            raise FormatError(
                f"symbol {int(in_code[row])} covers {int(size[row]):#x} bytes from byte "
                f"{int(value[row]):#x} of {parts.raw.names[int(rows['shndx'][row])]}, "
                "which are not its instructions",
                parts.raw.byte_off(symbols.section, int(in_code[row]) * rows.itemsize + 8),
            )
        end = space.slot(code, np.where(placed, value + size, 0).astype(np.int64))
        return cls(symbols, in_code[placed], slot[placed], end[placed])

    @property
    def is_func(self) -> NDArray[np.bool_]:
        """(k,) whether the symbol is a function."""
        return np.asarray(self.symbols.is_function[self.sym], np.bool_)

    def tables(self, relocs: CodeRelocs, starts: Slots64) -> dict[str, AnchoredTable]:
        """Symbols that can be called follow calls, others, as basic blocks' labels, jumps."""
        rows = np.zeros(self.sym.size, SYMBOL)
        rows["sym"] = self.sym
        rows["is_sized"] = self.symbols.rows["size"][self.sym] != 0
        called = relocs.rows["sym"][relocs.is_internal]
        is_entry = self.is_func | (self.symbols.bind[self.sym] != STB_LOCAL)
        is_entry |= np.isin(self.sym, called) | np.isin(self.slot, starts)
        slot, end = self.slot.astype(np.int32), self.end.astype(np.int32)
        return {
            name: AnchoredTable(slot[mine], rows[mine], anchor, end=end[mine])
            for name, mine, anchor in (
                (SYMBOL_TABLE, is_entry, Anchor.ENTRY),
                (LABEL_TABLE, ~is_entry, Anchor.LAND),
            )
        }

    def names(self, starts: Slots64) -> tuple[str, ...]:
        """A name for each start: a global function's before a local one's before a label's."""
        at_start = np.flatnonzero(np.isin(self.slot, starts))
        rank = 2 * ~self.is_func[at_start] + (self.symbols.bind[self.sym[at_start]] == STB_LOCAL)
        best = at_start[np.argsort(-rank, kind="stable")]
        # Of several on one slot the last wins, so the best come last.
        named = dict(zip(self.slot[best].tolist(), self.sym[best].tolist(), strict=True))
        return tuple(
            self.symbols.name(named[start]) if start in named else "" for start in starts.tolist()
        )


def _starts(
    parts: ObjectParts,
    relocs: CodeRelocs,
    insns: NDArray[Any],
    sites: Slots64,
    labels: _SymbolSites,
) -> Slots64:
    """Where functions start: sections, function symbols, and what calls and addresses refer to.

    Raises:
        FormatError: a call without a relocation leaves its section.
    """
    space = parts.space
    target = sites + 1 + insns["imm"][sites]
    is_bad = (target < 0) | (target >= len(insns))
    is_bad[~is_bad] |= parts.second[target[~is_bad]]
    is_far = space.of_slot(target) != space.of_slot(sites)
    is_bad |= is_far & ~mark(relocs.slot[relocs.is_internal], len(insns))[sites]
    if is_bad.any():
        slot = int(sites[np.argmax(is_bad)])
        raise FormatError(
            f"`{parts.text(slot)}` has no relocation and refers to no instruction of its section "
            f"{parts.section_name(slot)}",
            parts.file_off(slot),
        )
    is_start = mark(target, len(insns))
    is_start[labels.slot[labels.is_func]] = True
    is_start[space.starts[:-1][space.starts[:-1] < space.starts[1:]]] = True
    is_start[_unowned(parts, insns, labels)] = True
    return np.flatnonzero(is_start)


def _unowned(parts: ObjectParts, insns: NDArray[Any], labels: _SymbolSites) -> Slots64:
    """Where code starts that no function symbol covers, after a function's end.

    Linking leaves such code: of a weak function that another one overrides the symbol is gone,
    and the code stays. A loader takes a function to end where its symbol does.

    Source: linux v6.18, tools/lib/bpf/linker.c, linker_append_elf_sym().
    """
    is_sized = labels.is_func & (labels.end > labels.slot)
    end: Slots64 = np.unique(labels.end[is_sized])
    edges = np.zeros(len(insns) + 1, np.int64)
    np.add.at(edges, labels.slot[is_sized], 1)
    np.add.at(edges, labels.end[is_sized], -1)
    end = end[(end < len(insns)) & ~np.isin(end, parts.space.starts)]
    end = end[(np.cumsum(edges)[end] == 0) & ~parts.second[end]]
    if not end.size:
        return end
    # Sizes that code runs or jumps past are none: hand-written symbols may have any.
    end = end[~isa.falls_through(insns[end - 1]) | parts.second[end - 1]]
    refs = read_references(insns, np.zeros(0, np.int32))
    jumps = np.flatnonzero(~refs.is_entry)
    low, high = (np.searchsorted(end, side, side="right") for side in _sides(refs, jumps))
    crossed = np.zeros(end.size + 1, np.int64)
    np.add.at(crossed, low, 1)
    np.add.at(crossed, high, -1)
    return np.asarray(end[np.cumsum(crossed)[:-1] == 0], np.int64)


def _sides(refs: References, jumps: NDArray[np.intp]) -> tuple[Slots64, Slots64]:
    """The lower and the upper one of a jump's slot and its target."""
    slot, target = refs.slot[jumps].astype(np.int64), refs.target[jumps].astype(np.int64)
    return np.minimum(slot, target), np.maximum(slot, target)


def _check_round_trip(parts: ObjectParts, program: Program) -> None:
    """Raise unless encoding what was decoded gives back the file's bytes.

    It can fail where a corrupted object keeps two values in one place, or
    one that its field cannot hold.
    """
    value = parts.symbols.rows["value"]
    fields = restore_fields(program.insns, program.tables[RELOC_TABLE], parts.space, value)
    at = parts.insns[fields.slot]
    is_other = (at["imm"] != fields.imm) | (at["regs"] != fields.regs)
    if is_other.any():
        slot = int(fields.slot[np.argmax(is_other)])
        raise FormatError(
            f"the relocation of `{parts.text(slot)}` cannot be written back as it is",
            parts.file_off(slot),
        )
    for section, content in write_addresses(parts.raw, program, parts.space, value).items():
        if content != parts.raw.contents[section]:
            raise FormatError(
                f"the addresses of code in {parts.raw.names[section]} overlap",
                parts.raw.byte_off(section),
            )
