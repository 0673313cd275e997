"""New maps, global variables and kernel functions, as a compiler would have written them.

A variable gets bytes in its section, a global symbol and, where the object has
types, a VAR in the section's DATASEC; a map gets a definition in ``.maps``, or
a record in the ``maps`` section of an object that has only such.

Source: libbpf v1.5, src/libbpf.c, bpf_object__init_user_btf_maps(),
bpf_object__init_global_data_maps(), btf_fixup_datasec().
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bpfpatch.btf import (
    Array,
    Btf,
    BtfBuilder,
    DataSec,
    Enum64,
    Enumerator,
    Func,
    FuncLinkage,
    Int,
    Kind,
    Member,
    Ptr,
    SecVar,
    Struct,
    TypeCopier,
    Var,
    VarLinkage,
)
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts.maps import MapDefinition

from .append import NewSection, NewSymbol, append, rel_sections
from .contents import BTF_MAPS, LEGACY_MAPS, maps
from .raw import SHT_NOBITS, SHT_PROGBITS, Buffer, RawElf
from .symtab import read_relocations, read_symbols

SHF_WRITE: Final = 1
SHF_ALLOC: Final = 2
DATA_SECTIONS: Final = (".bss", ".data", ".rodata")
KSYMS: Final = ".ksyms"
_POINTER: Final = 8
_LEGACY_WORDS: Final = 5

MakeType = Callable[[BtfBuilder], int]
"""Adds a type, if need be, and returns its id."""


def u64_array(count: int) -> MakeType:
    """The type of ``count`` counters of 64 bits."""

    def make(types: BtfBuilder) -> int:
        return types.add(
            Array(_integer(types, "unsigned long long", 8), _integer(types, "int", 4), count)
        )

    return make


def add_section(raw: RawElf, name: str, data: bytes) -> RawElf:
    """The object with a section that loaders skip.

    Raises:
        OptionError: there is one of this name.
    """
    if raw.find(name) is not None:
        raise OptionError(f"the object has a section {name!r} already")
    return append(raw, [NewSection(name, SHT_PROGBITS, 0, data, align=1)])


def add_rel_sections(raw: RawElf, code_sections: tuple[int, ...]) -> RawElf:
    """The object with a section of relocations for each of these that has none."""
    if read_symbols(raw).section < 0:
        raise UnsupportedError(
            "the object has no symbol table, which relocations need; strip it with -g "
            "(--strip-debug) instead of --strip-all"
        )
    have = {rel.target for rel in read_relocations(raw, read_symbols(raw))}
    missing = [number for number in code_sections if number not in have]
    return append(raw, rel_sections(raw, missing))


def add_global(
    raw: RawElf, btf: Btf | None, name: str, data: bytes, section: str, make: MakeType | None
) -> RawElf:
    """The object with one more global variable.

    Args:
        raw: the object.
        btf: its types, or None.
        name: of the variable.
        data: what it starts with; in ``.bss`` only its length counts.
        section: ``.bss``, ``.data``, ``.rodata`` or one of them with ``.NAME``; it is made
            where the object has none.
        make: its type; bytes otherwise.

    Raises:
        OptionError: the name is taken, the section is none for data, or the data is empty.
        UnsupportedError: the object has no symbol table.
    """
    is_zero = section.startswith(".bss")
    if not any(section == base or section.startswith(f"{base}.") for base in DATA_SECTIONS):
        raise OptionError(
            f"{section!r} is not a section for data: take .bss, .data or .rodata, alone or "
            "with a dot and a name after it"
        )
    if not data or (is_zero and any(data)):
        raise OptionError(f"variable {name!r} in {section} needs bytes, in .bss zeros")
    _check_name(raw, name)
    number = raw.find(section)
    changed: dict[int, Buffer] = {}
    new = []
    if number is None:
        number, at = len(raw.shdrs), 0
        flags = SHF_ALLOC | (0 if section.startswith(".rodata") else SHF_WRITE)
        kind = SHT_NOBITS if is_zero else SHT_PROGBITS
        new.append(NewSection(section, kind, flags, data))
    else:
        raw, at, content = _grown(raw, number, data)
        if content is not None:
            changed[number] = content
    symbol = NewSymbol(name, number, at, len(data))
    if btf is not None:
        home = raw.find(".BTF")
        assert home is not None
        changed[home] = _with_variable(btf, section, name, symbol, make)
    return append(raw, new, [symbol], changed)


def add_map(
    raw: RawElf, btf: Btf | None, new: MapDefinition, value: MakeType | None = None
) -> RawElf:
    """The object with one more map.

    Args:
        raw: the object.
        btf: its types, or None.
        new: the map, whose ids of types are those of ``btf``.
        value: makes its values' type, for tools that print them, where ``btf`` has it not.

    Raises:
        OptionError: the name is taken, or the map starts with something.
        UnsupportedError: the object has no symbol table, or .BTF.ext without .BTF.
    """
    _check_name(raw, new.name)
    if new.values or new.content is not None or new.is_frozen:
        raise OptionError(
            f"map {new.name!r} starts with entries, which an added definition cannot hold; add a "
            f"variable for what a map of data starts with"
        )
    if raw.find(LEGACY_MAPS) is not None and raw.find(BTF_MAPS) is None:
        return _add_legacy(raw, new)
    if btf is None and raw.find(".BTF.ext") is not None:
        raise UnsupportedError("the object has .BTF.ext but no .BTF; strip both or none")
    types = BtfBuilder(btf, byteorder=raw.byteorder)
    definition, size = map_type(types, new, value)
    var = types.add(Var(new.name, definition, VarLinkage.GLOBAL))
    number = raw.find(BTF_MAPS)
    changed: dict[int, Buffer] = {}
    sections = []
    if number is None:
        number, at = len(raw.shdrs), 0
        sections.append(NewSection(BTF_MAPS, SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, bytes(size)))
    else:
        raw, at, content = _grown(raw, number, bytes(size))
        assert content is not None
        changed[number] = content
    _add_to_datasec(types, btf, BTF_MAPS, SecVar(var, at, size))
    home = raw.find(".BTF")
    built = types.build().to_bytes()
    if home is None:
        sections.append(NewSection(".BTF", SHT_PROGBITS, 0, built, align=4))
    else:
        changed[home] = built
    return append(raw, sections, [NewSymbol(new.name, number, at, size)], changed)


def add_kfunc(raw: RawElf, btf: Btf | None, name: str, kernel: Btf) -> RawElf:
    """The object with a kernel function declared.

    Args:
        raw: the object.
        btf: its types.
        name: of the function.
        kernel: types that have it.

    Raises:
        OptionError: the name is taken, or those types have no such function.
        UnsupportedError: the object has no symbol table, or no types.
    """
    if btf is None:
        raise UnsupportedError(
            f"to declare {name!r} the object needs types (.BTF), by which a loader finds the "
            "kernel's function; compile it with -g"
        )
    _check_name(raw, name)
    found = [kernel.type(type_id) for type_id in kernel.find(name, Kind.FUNC)]
    if not found:
        raise OptionError(f"the types that should declare it have no function {name!r}")
    function = found[0]
    assert isinstance(function, Func)
    types = BtfBuilder(btf)
    proto = TypeCopier(kernel, types).copy(function.type_id)
    declared = types.add(Func(name, proto, FuncLinkage.EXTERN))
    row = SecVar(declared, 0, 0)
    known = btf.find(KSYMS, Kind.DATASEC)
    if known:
        old = btf.type(known[0])
        assert isinstance(old, DataSec)
        types.replace(known[0], replace(old, variables=(*old.variables, row)))
    else:
        types.add(DataSec(KSYMS, 0, (row,)))
    home = raw.find(".BTF")
    assert home is not None
    return append(raw, (), [NewSymbol(name, 0)], {home: types.build().to_bytes()})


def _check_name(raw: RawElf, name: str) -> None:
    table = read_symbols(raw)
    if any(table.name(index) == name for index in range(1, len(table))):
        raise OptionError(f"the object has a symbol {name!r} already")


def _grown(raw: RawElf, number: int, data: bytes) -> tuple[RawElf, int, bytes | None]:
    """(object, where the data goes, the section's new content if it has bytes)."""
    shdrs = raw.shdrs.copy()
    shdrs["addralign"][number] = max(int(shdrs["addralign"][number]), _POINTER)
    size = int(shdrs["size"][number])
    at = size + -size % _POINTER
    if int(shdrs["type"][number]) == SHT_NOBITS:
        shdrs["size"][number] = at + len(data)
        return replace(raw, shdrs=shdrs), at, None
    content = bytes(raw.contents[number]).ljust(at, b"\0") + data
    return replace(raw, shdrs=shdrs), at, content


def _with_variable(
    btf: Btf, section: str, name: str, symbol: NewSymbol, make: MakeType | None
) -> bytes:
    types = BtfBuilder(btf)
    type_id = make(types) if make is not None else _bytes_type(types, symbol.size)
    var = types.add(Var(name, type_id, VarLinkage.GLOBAL))
    _add_to_datasec(types, btf, section, SecVar(var, symbol.value, symbol.size))
    return types.build().to_bytes()


def _add_to_datasec(types: BtfBuilder, btf: Btf | None, section: str, row: SecVar) -> None:
    """Rows stay in order of place, as the kernel wants them; a loader fills in zero sizes."""
    known = btf.find(section, Kind.DATASEC) if btf is not None else ()
    if not known:
        types.add(DataSec(section, row.byte_off + row.size, (row,)))
        return
    assert btf is not None
    old = btf.type(known[0])
    assert isinstance(old, DataSec)
    if not old.size:  # as clang writes it: places come from the symbols
        types.replace(known[0], replace(old, variables=(*old.variables, row)))
        return
    rows = tuple(sorted((*old.variables, row), key=lambda one: one.byte_off))
    types.replace(known[0], replace(old, size=row.byte_off + row.size, variables=rows))


def _integer(types: BtfBuilder, name: str, size: int) -> int:
    return types.add(Int(name, size, 8 * size))


def _bytes_type(types: BtfBuilder, count: int) -> int:
    return types.add(Array(_integer(types, "unsigned char", 1), _integer(types, "int", 4), count))


def map_type(
    types: BtfBuilder, new: MapDefinition, value: MakeType | None = None
) -> tuple[int, int]:
    """(type id, bytes) of the struct that says in its members' types what map it is."""
    number = _integer(types, "int", 4)

    def uint(count: int) -> int:
        return types.add(Ptr(types.add(Array(number, number, count))))

    # The kernel takes types for both of key and value, or for none.
    has_value = bool(new.inner is not None or value is not None or new.value_type_id)
    members = {"type": uint(new.type), "max_entries": uint(new.max_entries)}
    if new.flags:
        members["map_flags"] = uint(new.flags)
    if new.extra:
        members["map_extra"] = _long(types, new.extra)
    if new.numa_node:
        members["numa_node"] = uint(new.numa_node)
    if new.key_type_id:
        members["key"] = types.add(Ptr(new.key_type_id))
    elif new.key_size == 4 and has_value:
        members["key"] = types.add(Ptr(_integer(types, "unsigned int", 4)))
    elif new.key_size:
        members["key_size"] = uint(new.key_size)
    if new.inner is not None:
        inner, _ = map_type(types, new.inner)
        members["values"] = types.add(Array(types.add(Ptr(inner)), number, 0))
    elif value is not None or new.value_type_id:
        made = new.value_type_id if value is None else value(types)
        members["value"] = types.add(Ptr(made))
    elif new.value_size:
        members["value_size"] = uint(new.value_size)
    rows = tuple(
        Member(name, type_id, 8 * _POINTER * index)
        for index, (name, type_id) in enumerate(members.items())
    )
    size = _POINTER * len(rows)
    return types.add(Struct("", size, rows)), size


def _long(types: BtfBuilder, value: int) -> int:
    """A number that may need more than 32 bits, as `map_type` encodes one."""
    if value < 1 << 32:
        number = _integer(types, "int", 4)
        return types.add(Ptr(types.add(Array(number, number, value))))
    return types.add(Enum64("", 8, (Enumerator(f"map_extra_{value:x}", value),)))


def _add_legacy(raw: RawElf, new: MapDefinition) -> RawElf:
    """One more record of a ``maps`` section, as long as those that are there."""
    number = raw.find(LEGACY_MAPS)
    assert number is not None
    shndx = read_symbols(raw).rows["shndx"]
    n_maps = sum(int(shndx[info.symbol]) == number for info in maps(raw))
    size = int(raw.shdrs["size"][number]) // max(n_maps, 1)
    if size < 4 * _LEGACY_WORDS:
        raise UnsupportedError(f"section {LEGACY_MAPS} has records of {size} bytes, too short")
    words = [new.type, new.key_size, new.value_size, new.max_entries, new.flags]
    record = b"".join(word.to_bytes(4, raw.byteorder) for word in words).ljust(size, b"\0")
    content = bytes(raw.contents[number]) + record
    symbol = NewSymbol(new.name, number, len(content) - size, size)
    return append(raw, (), [symbol], {number: content})
