"""The flat program that a loader submits: one function, and all that it reaches.

Source: linux v6.1, tools/lib/bpf/libbpf.c, bpf_object__reloc_code() (what is
appended, and in which order) and adjust_prog_btf_ext_info() (records);
libbpf 1.3, bpf_prog_collect_exception_cb() (exception callbacks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.btf import Btf, DataSec, Kind
from bpfpatch.btf.callbacks import exception_callbacks
from bpfpatch.errors import FormatError, LinkError
from bpfpatch.program import FUNC_INFO, LINE_INFO, Anchor, AnchoredTable, Program, Remap, Subprogs
from bpfpatch.program.refs import write_distances
from bpfpatch.program.types import INSERTED, Slots
from bpfpatch.text import unknown

from .addresses import JUMP_TABLES_SECTION
from .contents import BTF_MAPS, ProgramInfo, functions, is_legacy_maps, map_symbols, programs
from .decode import ObjectCode
from .raw import RawElf
from .rewrite import RewrittenFile
from .space import CORE_RELO, FORM_EXTERNAL, INSN_SIZE, JUMP_TABLE, RELOC_TABLE
from .symtab import SHN_COMMON, is_defined

_CALL: Final = 0x85

LINK_RELOC: Final = np.dtype([("target", "<u4"), ("addend", "<i8")])
"""A row of a linked program's ``reloc`` table: index into its ``targets``, and bytes from it."""


class TargetKind(Enum):
    """What a relocation that is left to the loader is against."""

    MAP = "map"
    DATA = "data"
    JUMP_TABLE = "jump_table"
    KCONFIG = "kconfig"
    KSYM = "ksym"
    KFUNC = "kfunc"


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """Something outside of the code that the code needs.

    Attributes:
        kind: what it is.
        name: the map, kernel symbol, kernel function or variable; of DATA the section,
            which a loader makes a map of.
        section: the section that it is in, or "" where it is not in the object.
    """

    kind: TargetKind
    name: str
    section: str


@dataclass(frozen=True, slots=True)
class LinkReloc:
    """A relocation that is left to the loader.

    Attributes:
        slot: the call or ld_imm64 to fill in.
        target: what to fill in.
        addend: bytes from the start of the target (DATA, JUMP_TABLE).
    """

    slot: int
    target: LinkTarget
    addend: int


@dataclass(frozen=True, eq=False)
class LinkedProgram:
    """A flat program with its records in the units of bpf(2).

    Attributes:
        name: its main function.
        section: the section that this is in.
        type: kind of program as bpftool names it, or "" where the section does not tell.
        license: of the object, or "".
        program: the code; its first subprog is the main function. It can be
            patched like any other, see `with_code`.
        origin: (n,) object slot of each slot, or INSERTED.
        targets: what ``reloc`` rows count.
    """

    name: str
    section: str
    type: str
    license: str
    program: Program
    origin: Slots
    targets: tuple[LinkTarget, ...]

    def __repr__(self) -> str:
        kind = self.type or "no kind"
        return f"<LinkedProgram {self.name!r} in {self.section!r} ({kind}), {self.program!r}>"

    def with_code(self, new: RewrittenFile) -> LinkedProgram:
        """The same with other code, for example what linearizing a patch list gave."""
        origin = np.where(new.remap.orig >= 0, self.origin[_old_slots(new.remap)], INSERTED)
        return replace(self, program=new.program, origin=origin.astype(np.int32))

    @property
    def relocations(self) -> tuple[LinkReloc, ...]:
        """What is left to resolve, by slot."""
        table = self.program.tables[RELOC_TABLE]
        order = np.argsort(table.insn, kind="stable")
        rows = zip(
            table.insn[order].tolist(),
            table.rows["target"][order].tolist(),
            table.rows["addend"][order].tolist(),
            strict=True,
        )
        return tuple(LinkReloc(slot, self.targets[index], addend) for slot, index, addend in rows)

    @property
    def func_info(self) -> NDArray[Any]:
        """bpf_func_info rows, ``insn_off`` in slots.

        Empty unless every subprog has one: the kernel wants all or none.
        """
        return self._records(FUNC_INFO, 1)

    @property
    def line_info(self) -> NDArray[Any]:
        """bpf_line_info rows, ``insn_off`` in slots.

        Empty unless every subprog starts with one: the kernel refuses others.
        """
        return self._records(LINE_INFO, 1)

    @property
    def core_relo(self) -> NDArray[Any]:
        """bpf_core_relo rows, ``insn_off`` in bytes."""
        return self._records(CORE_RELO, INSN_SIZE)

    def _records(self, name: str, unit: int) -> NDArray[Any]:
        table = self.program.tables.get(name)
        if table is None:
            return np.zeros(0, np.dtype([("insn_off", "<u4")]))
        fields = [(field, table.rows.dtype[field]) for field in table.rows.dtype.names or ()]
        dtype = np.dtype([("insn_off", "<u4"), *fields])
        has_all = unit != 1 or bool(np.isin(self.program.subprogs.start, table.insn).all())
        out = np.zeros(len(table) if has_all else 0, dtype)
        if has_all:
            out["insn_off"] = table.insn * unit
            for field, _ in fields:
                out[field] = table.rows[field]
        return out


def _old_slots(remap: Remap) -> Slots:
    return np.maximum(remap.orig, 0)


def link(raw: RawElf, code: ObjectCode, name: str) -> LinkedProgram:
    """Put a program's function and all that it reaches one after the other.

    Any other function can be asked for, too: loaders of user-space VMs run those of .text.

    Raises:
        LinkError: there is no function of this name.
    """
    found = programs(code)
    picked = [info for info in (*found, *functions(code)) if info.name == name]
    if not picked:
        names = [info.name for info in found or functions(code)]
        what = "program" if found else "function"
        raise LinkError(unknown(what, name, names))
    main = picked[0]
    units = list(_reached(code, main))
    program = code.program
    ends = program.subprogs.ends(len(program))
    starts = program.subprogs.start
    spans = [np.arange(starts[unit], ends[unit], dtype=np.int32) for unit in units]
    origin = np.concatenate(spans)
    flat = np.full(len(program) + 1, -1, np.int64)
    flat[origin] = np.arange(origin.size)
    return LinkedProgram(
        main.name,
        main.section,
        main.type,
        _license(raw),
        *_flatten(raw, code, main, _Flat(units, origin, flat)),
    )


def _reached(code: ObjectCode, main: ProgramInfo) -> Iterator[int]:
    """Subprogs in the order that libbpf appends them: when first met, and their callees next."""
    program = code.program
    refs, subprogs = program.refs, program.subprogs
    slot, target = refs.slot[refs.is_entry], refs.target[refs.is_entry]
    callee = subprogs.of(target)
    edges = np.searchsorted(slot, np.append(subprogs.start, len(program)))

    def callees(unit: int) -> Iterator[int]:
        return iter(callee[edges[unit] : edges[unit + 1]].tolist())

    first = int(subprogs.of(np.array([main.start], np.int32))[0])
    seen = {first}
    yield first
    callback = _exception_callback(code, main)
    for root in (first, callback):
        if root is None:
            continue
        if root not in seen:
            seen.add(root)
            yield root
        stack = [callees(root)]
        while stack:
            unit = next(stack[-1], None)
            if unit is None:
                stack.pop()
            elif unit not in seen:
                seen.add(unit)
                yield unit
                stack.append(callees(unit))


def _exception_callback(code: ObjectCode, main: ProgramInfo) -> int | None:
    """The subprog that a declaration tag of the main function names as its exception callback."""
    if code.btf is None:
        return None
    declared = exception_callbacks(code.btf)
    for func in code.btf.find(main.name, Kind.FUNC):
        name = declared.get(func)
        if name is None:
            continue
        if name not in code.program.subprogs.names:
            raise LinkError(f"{main.name} names an exception callback {name!r} that does not exist")
        return code.program.subprogs.names.index(name)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Flat:
    """Where slots go: subprogs in order, object slot of each flat one, and the other way round."""

    units: list[int]
    origin: Slots
    place: NDArray[np.int64]


def _flatten(
    raw: RawElf, code: ObjectCode, main: ProgramInfo, to: _Flat
) -> tuple[Program, Slots, tuple[LinkTarget, ...]]:
    program = code.program
    units, origin, flat = to.units, to.origin, to.place
    insns = program.insns[origin]
    refs = program.refs
    mine = np.flatnonzero(flat[refs.slot] >= 0)
    slot, target = flat[refs.slot[mine]], flat[np.clip(refs.target[mine], -1, len(program))]
    if (target < 0).any():
        at = int(refs.slot[mine[np.argmin(target)]])
        raise LinkError(f"{program.where(at)}: jumps out of its function")
    write_distances(
        insns, slot.astype(np.int32), refs.kind[mine], (target - slot - 1).astype(np.int32)
    )
    starts = flat[program.subprogs.start[units]].astype(np.int32)
    names = tuple(program.subprogs.names[unit] for unit in units)
    roots = units[0], _exception_callback(code, main)
    is_root = np.array([unit in roots for unit in units])
    relocs, targets = _external(raw, code, flat)
    tables = {RELOC_TABLE: relocs}
    for name in (LINE_INFO, FUNC_INFO, CORE_RELO, JUMP_TABLE):
        if name in program.tables:
            tables[name] = _moved(program.tables[name], flat)
    linked = Program(
        insns=insns,
        subprogs=Subprogs(starts, names, np.zeros(starts.size, np.int32), is_root),
        sections=(main.section,),
        tables=tables,
        external=np.unique(flat[program.external[flat[program.external] >= 0]]).astype(np.int32),
        strings=program.strings,
    )
    return linked, origin, targets


def _moved(table: AnchoredTable, flat: NDArray[np.int64]) -> AnchoredTable:
    place = flat[table.insn]
    order = np.argsort(place, kind="stable")
    order = order[place[order] >= 0]
    return table.with_rows(place[order].astype(np.int32), table.rows[order])


def _external(
    raw: RawElf, code: ObjectCode, flat: NDArray[np.int64]
) -> tuple[AnchoredTable, tuple[LinkTarget, ...]]:
    """The relocations of these slots that are against no code, and what they are against."""
    table = code.program.tables[RELOC_TABLE]
    mine = np.flatnonzero((table.rows["form"] == FORM_EXTERNAL) & (flat[table.insn] >= 0))
    insns, kconfig = code.program.insns, kconfig_names(code.btf)
    index: dict[LinkTarget, int] = {}
    rows = np.zeros(mine.size, LINK_RELOC)
    for row, (slot, sym) in enumerate(
        zip(table.insn[mine].tolist(), table.rows["sym"][mine].tolist(), strict=True)
    ):
        imm = int(insns["imm"][slot])
        is_call = int(insns["code"][slot]) == _CALL
        target, addend = _target(raw, code, sym, imm, is_call=is_call, kconfig=kconfig)
        if not -(1 << 63) <= addend < 1 << 63:
            raise FormatError(f"{target.name} with its addend is at {addend:#x}, beyond 63 bits")
        rows["target"][row] = index.setdefault(target, len(index))
        rows["addend"][row] = addend
    place = flat[table.insn[mine]]
    order = np.argsort(place, kind="stable")
    moved = AnchoredTable(place[order].astype(np.int32), rows[order], Anchor.OWN, table.on_replace)
    return moved, tuple(index)


def _target(
    raw: RawElf, code: ObjectCode, sym: int, imm: int, *, is_call: bool, kconfig: frozenset[str]
) -> tuple[LinkTarget, int]:
    symbols = code.symbols
    row = symbols.rows[sym]
    name = symbols.name(sym)
    if int(row["shndx"]) == SHN_COMMON:
        raise LinkError(
            f"{name} is a common symbol: a variable without a place, which loaders do not "
            "support; give it a value, or compile with -fno-common"
        )
    if not bool(is_defined(row)):
        kind = TargetKind.KCONFIG if name in kconfig else TargetKind.KSYM
        return LinkTarget(TargetKind.KFUNC if is_call else kind, name, ""), 0
    section = raw.names[int(row["shndx"])]
    place = int(row["value"]) + imm
    if section == JUMP_TABLES_SECTION:
        return LinkTarget(TargetKind.JUMP_TABLE, name, section), place
    if section != BTF_MAPS and not is_legacy_maps(section):
        return LinkTarget(TargetKind.DATA, section, section), place
    if not map_symbols(symbols, np.array([sym])):
        # A static map: the addend says which one of the section it is.
        is_there = (symbols.rows["shndx"] == row["shndx"]) & (symbols.rows["value"] == place)
        named = map_symbols(symbols, np.flatnonzero(is_there))
        if not named:
            raise LinkError(f"code refers to byte {place} of section {section}: no map is there")
        name = symbols.name(named[0])
    return LinkTarget(TargetKind.MAP, name, section), 0


def kconfig_names(btf: Btf | None) -> frozenset[str]:
    """Values of the kernel's configuration that an object reads."""
    if btf is None:
        return frozenset()
    names: list[str] = []
    for type_id in btf.find(".kconfig", Kind.DATASEC):
        section = btf.type(type_id)
        if isinstance(section, DataSec):
            names += [btf.name_of(item.type_id) for item in section.variables]
    return frozenset(names)


def _license(raw: RawElf) -> str:
    section = raw.find("license")
    if section is None:
        return ""
    return bytes(raw.contents[section]).split(b"\0")[0].decode("utf-8", "replace")
