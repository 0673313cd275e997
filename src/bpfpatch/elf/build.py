"""An object from its parts, where there was no file: what a compiler would have written.

The main function has a section of its own, and all others are in ``.text``, as libbpf
wants it. Slots of the object's code are those of the flat program.

Source: libbpf v1.5, src/libbpf.c, bpf_program__record_reloc(), bpf_object__reloc_code(),
bpf_object__add_programs() and btf_fixup_datasec(); System V ABI, Object Files (ELF-64).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf, BtfBuilder, BtfExt, DataSec, ExtSection, SecVar, Var, VarLinkage
from bpfpatch.btf.ext import CORE_RELO as CORE_RECORD
from bpfpatch.btf.ext import FUNC_INFO as FUNC_RECORD
from bpfpatch.btf.ext import LINE_INFO as LINE_RECORD
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.program import FUNC_INFO, LINE_INFO, Program

from .buildfile import ALIGN, BuiltSection, Strings, file_of
from .contents import BTF_MAPS
from .newdata import SHF_ALLOC, SHF_WRITE, map_type
from .newrelocs import R_BPF_64_32, R_BPF_64_64
from .object import ElfObject
from .raw import (
    REL,
    SHF_EXECINSTR,
    SHF_INFO_LINK,
    SHT_NOBITS,
    SHT_NULL,
    SHT_PROGBITS,
    SHT_REL,
    SHT_STRTAB,
    SHT_SYMTAB,
    SYM,
)
from .space import CORE_RELO, INSN_SIZE
from .symtab import STB_GLOBAL, STB_LOCAL, STT_FUNC, STT_NOTYPE, STT_OBJECT, STT_SECTION

_TEXT: Final = ".text"
_MERGED: Final = "license"


@dataclass(frozen=True, slots=True)
class NewVariable:
    """A global variable: its name, and the bytes of its section that it is."""

    name: str
    byte_off: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class DataPart:
    """A section of data.

    Attributes:
        name: ``.rodata``, ``.data`` or ``.bss``, or one of them with a name after a dot.
        data: what it starts with; of ``.bss`` zeros.
        variables: those in it that have a symbol.
    """

    name: str
    data: bytes
    variables: tuple[NewVariable, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class NewObjectParts:
    """What an object is made of.

    Attributes:
        program: flat; its first subprog is the main function. Its tables ``func_info``,
            ``line_info`` and ``core_relo`` become records.
        section: of the main function.
        license: of the object.
        btf: what its records refer to; None where it has none.
        maps: all that it defines.
        data: its data sections.
        uses: by slot of an ld_imm64, the map's, section's or extern variable's name; by that of a
            call, the extern function's. The instruction holds what a relocation adds to.
        is_global: by subprog, whether it is a global function; the main one is one in any case.
    """

    program: Program
    section: str
    license: str
    btf: Btf | None
    maps: tuple[MapDefinition, ...]
    data: tuple[DataPart, ...]
    uses: Mapping[int, str]
    is_global: tuple[bool, ...]


def build_object(parts: NewObjectParts) -> ElfObject:
    """The object.

    Raises:
        UnsupportedError: the main function is called, which no loader expects.
        OptionError: a definition does not fit its fields.
    """
    return _Builder(parts).build()


class _Builder:
    def __init__(self, parts: NewObjectParts) -> None:
        self._parts = parts
        self._strings = Strings()
        self._sections = [BuiltSection("", SHT_NULL, 0, b"", 0, align=0)]
        self._symbols: list[tuple[str, int, int, int, int]] = []
        self._index: dict[str, int] = {}
        subprogs = parts.program.subprogs
        self._starts = subprogs.start.tolist()
        self._main_end = self._starts[1] if len(self._starts) > 1 else len(parts.program)
        self._names = _unique(subprogs.names)

    def build(self) -> ElfObject:
        parts = self._parts
        btf = self._add_data()
        self._add_symbols()
        insns, relocs = self._code()
        code = self._add_code(insns)
        n_local = self._order_symbols(code)
        ext = None if btf is None else self._records(btf)
        n_more = sum(map(bool, relocs.values())) + (btf is not None) + (ext is not None) + 1
        symtab = len(self._sections) + n_more
        for name, rows in relocs.items():
            if rows:
                self._add_relocs(name, code[name], rows, symtab)
        if btf is not None:
            self._section(".BTF", SHT_PROGBITS, 0, btf.to_bytes(), align=4)
        if ext is not None:
            self._section(".BTF.ext", SHT_PROGBITS, 0, ext, align=4)
        self._section(_MERGED, SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, _text(parts.license), align=1)
        assert symtab == len(self._sections)
        self._section(
            ".symtab", SHT_SYMTAB, 0, self._symbol_rows(code), link=symtab + 1, info=n_local
        )
        self._section(".strtab", SHT_STRTAB, 0, b"", align=1)
        return ElfObject.parse(file_of(self._sections, self._strings))

    # Sections.

    def _section(
        self,
        name: str,
        kind: int,
        flags: int,
        data: bytes,
        *,
        link: int = 0,
        info: int = 0,
        align: int = ALIGN,
    ) -> int:
        entsize = {SHT_REL: REL["little"].itemsize, SHT_SYMTAB: SYM["little"].itemsize}.get(kind, 0)
        held = b"" if kind == SHT_NOBITS else data
        self._sections.append(
            BuiltSection(name, kind, flags, held, len(data), link, info, entsize, align)
        )
        return len(self._sections) - 1

    def _add_code(self, insns: isa.Insns) -> dict[str, int]:
        flags = SHF_ALLOC | SHF_EXECINSTR
        main, rest = insns[: self._main_end].tobytes(), insns[self._main_end :].tobytes()
        # In front of all others, so that slots are the flat program's.
        made = [BuiltSection(self._parts.section, SHT_PROGBITS, flags, main, len(main))]
        if rest:
            made.append(BuiltSection(_TEXT, SHT_PROGBITS, flags, rest, len(rest)))
        self._sections[1:1] = made
        for name in self._index:
            self._index[name] += len(made)
        return {one.name: number for number, one in enumerate(made, 1)}

    def _add_data(self) -> Btf | None:
        """Data and maps, and the types that define these."""
        parts = self._parts
        for part in parts.data:
            is_zero = part.name.startswith(".bss")
            flags = SHF_ALLOC | (0 if part.name.startswith(".rodata") else SHF_WRITE)
            kind = SHT_NOBITS if is_zero else SHT_PROGBITS
            self._index[part.name] = self._section(part.name, kind, flags, part.data)
        if not parts.maps:
            return parts.btf
        types = BtfBuilder(parts.btf)
        rows, at = [], 0
        for one in parts.maps:
            type_id, size = map_type(types, one)
            var = types.add(Var(one.name, type_id, VarLinkage.GLOBAL))
            rows.append(SecVar(var, at, size))
            at += size
        types.add(DataSec(BTF_MAPS, at, tuple(rows)))
        self._index[BTF_MAPS] = self._section(
            BTF_MAPS, SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, bytes(at)
        )
        self._map_rows = rows
        return types.build()

    # Symbols: (name, info, section name or "", value, size), locals first.

    def _add_symbols(self) -> None:
        self._homes: list[str] = []
        for part in self._parts.data:
            self._symbol(part.name, STB_LOCAL, STT_SECTION, part.name, 0, 0)
        if len(self._starts) > 1:
            self._symbol(_TEXT, STB_LOCAL, STT_SECTION, _TEXT, 0, 0)
        ends = [*self._starts[1:], len(self._parts.program)]
        for row, (start, end) in enumerate(zip(self._starts, ends, strict=True)):
            is_main = row == 0
            home = self._parts.section if is_main else _TEXT
            bind = STB_GLOBAL if is_main or self._parts.is_global[row] else STB_LOCAL
            value = INSN_SIZE * (start - (0 if is_main else self._main_end))
            name, size = self._names[row], INSN_SIZE * (end - start)
            self._symbol(name, bind, STT_FUNC, home, value, size)
        for part in self._parts.data:
            for one in part.variables:
                self._symbol(one.name, STB_GLOBAL, STT_OBJECT, part.name, one.byte_off, one.size)
        for one_map, row_at in zip(self._parts.maps, self._map_rows_or_none(), strict=True):
            self._symbol(
                one_map.name, STB_GLOBAL, STT_OBJECT, BTF_MAPS, row_at.byte_off, row_at.size
            )
        known = {name for name, *_ in self._symbols} | set(self._index)
        for name in dict.fromkeys(self._parts.uses.values()):
            if name not in known:
                self._symbol(name, STB_GLOBAL, STT_NOTYPE, "", 0, 0)

    def _map_rows_or_none(self) -> Sequence[SecVar]:
        return self._map_rows if self._parts.maps else ()

    def _symbol(self, name: str, bind: int, kind: int, home: str, value: int, size: int) -> None:
        self._symbols.append((name, bind << 4 | kind, 0, value, size))
        self._homes.append(home)

    def _order_symbols(self, code: Mapping[str, int]) -> int:
        """Locals first, as the format wants it; how many there are, the empty one among them."""
        order = sorted(range(len(self._symbols)), key=lambda at: self._symbols[at][1] >> 4)
        self._symbols = [self._symbols[at] for at in order]
        self._homes = [self._homes[at] for at in order]
        self._number = {
            (name, info & 0xF == STT_FUNC): at
            for at, (name, info, *_) in enumerate(self._symbols, 1)
        }
        return 1 + sum(info >> 4 == STB_LOCAL for _, info, *_ in self._symbols)

    def _symbol_rows(self, code: Mapping[str, int]) -> bytes:
        rows = np.zeros(len(self._symbols) + 1, SYM["little"])
        places = {**self._index, **code, "": 0}
        pairs = zip(self._symbols, self._homes, strict=True)
        for at, ((name, info, _, value, size), home) in enumerate(pairs, 1):
            is_section = info & 0xF == STT_SECTION
            rows["name_off"][at] = 0 if is_section else self._strings.add(name)
            rows["info"][at], rows["shndx"][at] = info, places[home]
            rows["value"][at], rows["size"][at] = value, size
        return rows.tobytes()

    # Code, and what it refers to.

    def _code(self) -> tuple[isa.Insns, dict[str, list[tuple[int, str, bool, int]]]]:
        """The instructions as a file has them, and relocations: (byte_off, symbol, is_func, type).

        By section of code.
        """
        program = self._parts.program
        insns = program.insns.copy()
        out: dict[str, list[tuple[int, str, bool, int]]] = {self._parts.section: [], _TEXT: []}
        refs = program.refs
        row_of = {start: row for row, start in enumerate(self._starts)}
        entries: dict[int, tuple[str, bool]] = {}
        for slot, target in zip(
            refs.slot[refs.is_entry].tolist(), refs.target[refs.is_entry].tolist(), strict=True
        ):
            if target == 0:
                raise UnsupportedError(f"{program.where(slot)} refers to the main function itself")
            row = row_of[target]
            is_call = int(insns["code"][slot]) != isa.LD_IMM64
            # A static function is named by its place in the section.
            is_global = self._parts.is_global[row]
            place = 0 if is_global else target - self._main_end
            entries[slot] = (self._names[row], True) if is_global else (_TEXT, False)
            insns["imm"][slot] = place - 1 if is_call else INSN_SIZE * place
            if not is_call:
                insns["regs"][slot] &= 0xF
        for slot, name in self._parts.uses.items():
            entries[slot] = (name, False)
        for slot in sorted(entries):
            name, is_func = entries[slot]
            is_main = slot < self._main_end
            byte_off = INSN_SIZE * (slot - (0 if is_main else self._main_end))
            kind = R_BPF_64_64 if int(insns["code"][slot]) == isa.LD_IMM64 else R_BPF_64_32
            home = self._parts.section if is_main else _TEXT
            out[home].append((byte_off, name, is_func, kind))
        return insns, out

    def _add_relocs(
        self, name: str, section: int, rows: list[tuple[int, str, bool, int]], symtab: int
    ) -> None:
        table = np.zeros(len(rows), REL["little"])
        for at, (byte_off, symbol, is_func, kind) in enumerate(rows):
            table["byte_off"][at], table["type"][at] = byte_off, kind
            table["sym"][at] = self._number[symbol, is_func]
        self._section(
            f".rel{name}", SHT_REL, SHF_INFO_LINK, table.tobytes(), link=symtab, info=section
        )

    def _records(self, btf: Btf) -> bytes | None:
        """The .BTF.ext, None without records; section names are strings of the .BTF."""
        program = self._parts.program
        names = {name: _string_at(btf, name) for name in (self._parts.section, _TEXT)}
        made: dict[str, list[ExtSection]] = {}
        for table_name, field, dtype in (
            (FUNC_INFO, "func_info", FUNC_RECORD),
            (LINE_INFO, "line_info", LINE_RECORD),
            (CORE_RELO, "core_relo", CORE_RECORD),
        ):
            table = program.tables.get(table_name)
            made[field] = []
            if table is None:
                continue
            order = np.argsort(table.insn, kind="stable")
            insn, payload = table.insn[order].astype(np.int64), table.rows[order]
            for name, mine, start in (
                (self._parts.section, insn < self._main_end, 0),
                (_TEXT, insn >= self._main_end, self._main_end),
            ):
                rows: NDArray[Any] = np.zeros(int(mine.sum()), dtype)
                rows["insn_off"] = (insn[mine] - start) * INSN_SIZE
                for column in payload.dtype.names or ():
                    rows[column] = payload[column][mine]
                if rows.size:
                    made[field].append(ExtSection(name, names[name], rows))
        if not any(made.values()):
            return None
        return BtfExt.empty("little").with_sections(**made).to_bytes()


def _unique(names: Sequence[str]) -> list[str]:
    """A name for each function that no other one has."""
    out: list[str] = []
    taken: set[str] = set()
    for row, name in enumerate(names):
        wanted = name or ("prog" if row == 0 else f"subprog_{row}")
        out.append(wanted if wanted not in taken else f"{wanted}.{row}")
        taken.add(out[-1])
    return out


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _string_at(btf: Btf, text: str) -> int:
    """Where a string is in the types' strings, in which the caller has put it."""
    found = btf.string_bytes.find(b"\0" + text.encode("utf-8", "surrogateescape") + b"\0")
    assert found >= 0, text
    return found + 1


def with_names(btf: Btf, section: str) -> Btf:
    """Types in whose strings the names of the code's sections are."""
    types = BtfBuilder(btf)
    types.string(section)
    types.string(_TEXT)
    return types.build()
