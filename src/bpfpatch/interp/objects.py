"""Objects on the machine: their maps, global data, and the relocations to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bpfpatch.btf import Kind
from bpfpatch.elf import ElfObject, LinkedProgram, LinkReloc, TargetKind
from bpfpatch.elf.mapdefs import map_definitions
from bpfpatch.elf.setup import PreparedEntry, Setup
from bpfpatch.errors import LinkError, UnsupportedError
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MAX_VALUE, MapDefinition
from bpfpatch.program import JUMP_TABLE, Program

from .maps import DataMap, OuterMap, ProgMap
from .memory import code_address

if TYPE_CHECKING:
    from .image import Image
    from .machine import Machine, MachineOptions

    M = TypeVar("M", bound=Machine)
else:
    M = TypeVar("M")

_SHT_NOBITS: Final = 8
_READ_ONLY: Final = ".rodata"
_JUMP_TABLES: Final = ".jumptables"


Adapt = Callable[[LinkedProgram], Program]
"""What makes a linked program fit for the machine: CO-RE, for which it has no types."""


def _as_linked(linked: LinkedProgram) -> Program:
    return linked.program


def machine_of_object(
    cls: type[M],
    obj: ElfObject,
    name: str | None,
    options: MachineOptions,
    given: dict[str, Any],
) -> M:
    """See `Machine.of_object`."""
    if name is None:
        names = [info.name for info in obj.programs]
        if len(names) != 1:
            raise LinkError(f"the object has {len(names)} programs; name one of {', '.join(names)}")
        (name,) = names
    return machine_of_linked(cls, obj, obj.link(name), options, given)


def machine_of_linked(
    cls: type[M],
    obj: ElfObject,
    linked: LinkedProgram,
    options: MachineOptions,
    given: dict[str, Any],
) -> M:
    """See `Machine.of_linked`."""
    externs: Mapping[str, int | bytes] = given.pop("externs", {})
    adapt: Adapt = given.pop("adapt", _as_linked)
    setup: Setup = given.pop("setup", Setup())
    prepared = setup.prepare(obj)
    machine = cls(adapt(linked), replace(options, byteorder=obj.byteorder), **given)
    loader = _Loader(machine, prepared.obj, externs, adapt)
    loader.bind(machine.image, linked)
    loader.fill_maps()
    put_entries(machine, prepared.entries)
    return machine


def put_entries(machine: Machine, entries: Iterable[PreparedEntry]) -> None:
    """Put entries into a machine's maps; it has those sections only that its programs use.

    Raises:
        BadHelperUse: a map does not take one.
    """
    for entry in entries:
        found = machine.maps.get(entry.map)
        if found is not None:
            found.set(entry.key, entry.value)


class _Loader:
    """Makes what programs of one object need, once."""

    def __init__(
        self,
        machine: Machine,
        obj: ElfObject,
        externs: Mapping[str, int | bytes],
        adapt: Adapt,
    ) -> None:
        self._machine = machine
        self._adapt = adapt
        self._obj = obj
        self._externs = externs
        self._data: dict[str, int] = {}
        self._variables: dict[str, int] = {}
        self._maps: list[MapDefinition] = list(defined_maps(obj))
        for defined in self._maps:
            machine.add_map(defined)

    def bind(self, image: Image, linked: LinkedProgram) -> None:
        """Resolve a program's relocations."""
        values: dict[int, int] = {}
        calls: dict[int, str] = {}
        for relocation in linked.relocations:
            if relocation.target.kind is TargetKind.KFUNC:
                calls[relocation.slot] = relocation.target.name
            else:
                values[relocation.slot] = self._value(image, relocation)
        image.bind(values, calls)

    def fill_maps(self) -> None:
        """Put programs and maps into the maps that start with some."""
        programs = {info.name for info in self._obj.programs}
        for defined in self._maps:
            found = self._machine.maps[defined.name]
            for index, name in defined.values:
                if isinstance(found, ProgMap) and name in programs:
                    linked = self._obj.link(name)
                    image = self._machine.add_program(self._adapt(linked))
                    self.bind(image, linked)
                    found.programs[index] = image.at(0)
                elif isinstance(found, OuterMap) and name in self._machine.maps:
                    found.put(index, self._machine.maps[name])

    def _value(self, image: Image, relocation: LinkReloc) -> int:
        target = relocation.target
        if target.kind is TargetKind.MAP:
            return self._machine.maps[target.name].address
        if target.kind is TargetKind.DATA:
            return self._section(target.section) + relocation.addend
        if target.kind is TargetKind.JUMP_TABLE:
            return self._jump_table(image) + relocation.addend
        if target.kind is TargetKind.KCONFIG:
            return self._variable(target.name)
        given = self._externs.get(target.name, 0)
        return given if isinstance(given, int) else self._variable(target.name)

    def _section(self, name: str) -> int:
        if name not in self._data:
            section = next(one for one in self._obj.sections if one.name == name)
            if section.size > MAX_VALUE:
                raise UnsupportedError(
                    f"section {name} has {section.size} bytes, a map's value at most {MAX_VALUE}"
                )
            is_zero = section.type == _SHT_NOBITS
            self._machine.memory.check(section.size)
            content = bytes(section.size) if is_zero else bytes(section.data)
            writable = not name.startswith(_READ_ONLY)
            made: DataMap = self._machine.add_data(name, content, writable=writable)
            self._data[name] = made.data_address
        return self._data[name]

    def _variable(self, name: str) -> int:
        """The address of a variable that the kernel provides; zeros unless a value was given."""
        if name not in self._variables:
            size = self._size_of(name)
            given = self._externs.get(name, 0)
            content = given if isinstance(given, bytes) else self._encoded(given, size)
            region = self._machine.memory.add(name, content, writable=False)
            self._variables[name] = region.address
        return self._variables[name]

    def _encoded(self, number: int, size: int) -> bytes:
        low = number & ((1 << 8 * size) - 1)
        return low.to_bytes(size, self._machine.byteorder)

    def _size_of(self, name: str) -> int:
        btf = self._obj.btf
        found = btf.find(name, Kind.VAR) if btf is not None else ()
        return btf.size_of(found[0]) if btf is not None and found else 8

    def _jump_table(self, image: Image) -> int:
        """The address of a program's own copy of the section with jump tables."""
        section = next(one for one in self._obj.sections if one.name == _JUMP_TABLES)
        content = bytearray(section.data)
        table = image.program.tables.get(JUMP_TABLE)
        if table is not None:
            mine = table.rows["section"] == section.index
            places = table.rows["byte_off"][mine].tolist()
            for slot, at in zip(table.insn[mine].tolist(), places, strict=True):
                address = code_address(image.number, slot)
                content[at : at + 8] = self._encoded(address, 8)
        name = f"jump tables of program {image.number}"
        return self._machine.memory.add(name, content, writable=False).address


# The maps that an object defines, as the machine can make them.

_WORD: Final = 4
# Their keys and values are words, whether a definition says so or not.
_OF_WORDS: Final = frozenset(
    {
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.CGROUP_ARRAY,
    }
)


def defined_maps(obj: ElfObject) -> Iterator[MapDefinition]:
    """All maps of an object, those of data sections left out.

    Raises:
        FormatError: a definition is broken.
        UnsupportedError: it has what is not known, or the object has no BTF that would say what
            its maps are.
    """
    for found in map_definitions(obj):
        if found.type in _OF_WORDS:
            yield replace(found, key_size=found.key_size or _WORD, value_size=_WORD)
        else:
            yield found
