"""Global variables of an object: what they are, what they hold, and other values for them.

Source: libbpf v1.5, src/libbpf.c, btf_fixup_datasec(): where a DATASEC has no size, as clang
writes it, a variable's place is its symbol's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bpfpatch.btf import Btf, BtfPlace, DataSec, Kind, Var
from bpfpatch.btf.values import read_value, write_value
from bpfpatch.btf.wire import ByteOrder
from bpfpatch.errors import OptionError
from bpfpatch.text import unknown

from .raw import SHT_NOBITS, Buffer, RawElf
from .symtab import STT_SECTION, SymbolTable, read_relocations, read_symbols

READ_ONLY: Final = ".rodata"
WRITABLE: Final = (".data", ".bss")


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable with a type.

    Attributes:
        name: its name.
        section: name of its section.
        number: its section's number.
        byte_off: bytes from the section's start.
        size: bytes.
        type_id: its type.
        type: its type as C writes it.
        btf: what the type is one of.
        order: byte order of ``data``.
        data: its bytes; empty where the section has none, and it starts with zeros.
    """

    name: str
    section: str
    number: int
    byte_off: int
    size: int
    type_id: int
    type: str
    btf: Btf = field(repr=False, compare=False)
    order: ByteOrder = field(repr=False)
    data: bytes = field(repr=False)

    @property
    def value(self) -> Any:
        """What it holds: see `bpfpatch.btf.values.read_value`."""
        return read_value(self.btf, self.type_id, self.data or bytes(self.size), self.order)

    @property
    def is_read_only(self) -> bool:
        """Whether programs cannot write it."""
        return is_kind(self.section, READ_ONLY)


def is_kind(section: str, base: str) -> bool:
    """Whether a section is ``.rodata``, or the like, or one of them with a name after a dot."""
    return section == base or section.startswith(f"{base}.")


def variables(raw: RawElf, btf: Btf | None) -> tuple[Variable, ...]:
    """The variables of ``.rodata``, ``.data`` and ``.bss``, in the order of their sections.

    Raises:
        FormatError: the types or symbols are broken.
    """
    if btf is None:
        return ()
    symbols = read_symbols(raw)
    out: list[Variable] = []
    for number, section in enumerate(raw.names):
        if any(is_kind(section, base) for base in (READ_ONLY, *WRITABLE)):
            out += _of_section(raw, btf, symbols, number)
    return tuple(sorted(out, key=lambda one: (one.number, one.byte_off)))


def _of_section(raw: RawElf, btf: Btf, symbols: SymbolTable, number: int) -> Iterator[Variable]:
    section = raw.names[number]
    size = int(raw.shdrs["size"][number])
    is_empty = int(raw.shdrs["type"][number]) == SHT_NOBITS
    places = {
        symbols.name(int(row)): int(symbols.rows["value"][row])
        for row in ((symbols.rows["shndx"] == number) & (symbols.type != STT_SECTION)).nonzero()[0]
    }
    twice = _named_twice(symbols, number)
    for type_id in btf.find(section, Kind.DATASEC):
        found = btf.type(type_id)
        assert isinstance(found, DataSec)
        for row in found.variables:
            var = btf.type(row.type_id)
            if not isinstance(var, Var):
                continue
            at = row.byte_off if found.size else places.get(var.name)
            if not found.size and var.name in twice:
                continue  # which of them it is, nothing says
            length = row.size or btf.size_of(var.type_id)
            if at is None or at + length > size:
                continue
            data = b"" if is_empty else bytes(raw.contents[number][at : at + length])
            place = (var.name, section, number, at, length, var.type_id)
            yield Variable(*place, btf.type_name(var.type_id), btf, raw.byteorder, data)


def _named_twice(symbols: SymbolTable, number: int) -> set[str]:
    here = (symbols.rows["shndx"] == number).nonzero()[0].tolist()
    counts = Counter(symbols.name(index) for index in here)
    return {name for name, count in counts.items() if count > 1}


@dataclass(frozen=True, slots=True)
class Spot:
    """What a name such as ``limits.max`` stands for.

    Attributes:
        variable: the variable.
        place: where within it, in bits, and as what.
        first: the first of its bytes in the section.
        end: the byte after the last.
    """

    variable: Variable
    place: BtfPlace
    first: int
    end: int


def find_spot(btf: Btf | None, known: Sequence[Variable], name: str) -> Spot:
    """What a name stands for: a variable, or a member or element of one.

    Raises:
        OptionError: there is none, or several.
    """
    if btf is None:
        raise OptionError(
            f"the object has no BTF, which says where {name} is and what it holds; compile it "
            "with -g"
        )
    # The longest name first: a static variable of a function is called FUNCTION.NAME.
    for end in sorted({len(name), *(match.start() for match in re.finditer(r"[.\[]", name))})[::-1]:
        found = [one for one in known if one.name == name[:end]]
        if len(found) > 1:
            homes = ", ".join(f"{one.section} at byte {one.byte_off}" for one in found)
            raise OptionError(f"several variables are called {name[:end]!r}: {homes}")
        if found:
            return _spot(btf, found[0], name, name[end:])
    raise OptionError(unknown("variable", re.split(r"[.\[]", name)[0], [one.name for one in known]))


def _spot(btf: Btf, variable: Variable, name: str, path: str) -> Spot:
    try:
        place = btf.member_path(variable.type_id, path)
    except OptionError as error:
        raise OptionError(f"{name}: {error}") from error
    bits = place.bitfield_size or 8 * btf.size_of(place.type_id)
    if place.bit_off + bits > 8 * variable.size:
        raise OptionError(
            f"{name} lies outside of {variable.name}, which has {variable.size} bytes"
        )
    first = variable.byte_off + place.bit_off // 8
    # A bitfield shares its bytes with others, which are not given: none of them is settled.
    end = first if place.bitfield_size else first + bits // 8
    return Spot(variable, place, first, end)


def with_values(
    raw: RawElf, btf: Btf | None, values: Mapping[str, Any], *, writable: bool
) -> RawElf:
    """The object with other values in its variables.

    Raises:
        OptionError: see `ElfObject.with_values`.
    """
    known = variables(raw, btf)
    changed: dict[int, Buffer] = {}
    for name, value in values.items():
        spot = find_spot(btf, known, name)
        assert btf is not None
        _check_home(raw, spot, name, writable=writable)
        one = spot.variable
        if int(raw.shdrs["type"][one.number]) == SHT_NOBITS:
            data = bytearray(one.size)
            write_value(btf, spot.place, data, value, raw.byteorder, name)
            if any(data):
                raise OptionError(
                    f"{name} is in {one.section}, which loaders fill with zeros; give it a value "
                    "in the source, so that it is in .data, or const, so that it is in .rodata"
                )
            continue
        content = bytearray(changed.get(one.number, raw.contents[one.number]))
        data = content[one.byte_off : one.byte_off + one.size]
        write_value(btf, spot.place, data, value, raw.byteorder, name)
        content[one.byte_off : one.byte_off + one.size] = data
        changed[one.number] = bytes(content)
    if not changed:
        return raw
    contents = tuple(changed.get(index, old) for index, old in enumerate(raw.contents))
    return replace(raw, contents=contents)


def _check_home(raw: RawElf, spot: Spot, name: str, *, writable: bool) -> None:
    one = spot.variable
    if not one.is_read_only and not writable:
        raise OptionError(
            f"{name} is in {one.section}: programs may write it, so this would set only its "
            "initial value; allow "
            f"that with --set-writable (writable=True)"
        )
    for rel in read_relocations(raw, read_symbols(raw)):
        at = rel.rows["byte_off"].astype("int64")
        if rel.target == one.number and ((at >= spot.first) & (at < spot.end)).any():
            raise OptionError(f"{name} holds an address, which a relocation fills in")
