"""A load as an object: the file that it might have come from.

Source: libbpf v1.5, src/libbpf.c, bpf_object__init_user_btf_maps(), btf_fixup_datasec(),
bpf_object__collect_externs(); include/uapi/linux/bpf.h of linux v6.18.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.bpf.loadrequest import LoadRequest
from bpfpatch.bpf.map import OF_MAPS, Map, MapInfo
from bpfpatch.bpf.mapfacts import is_frozen
from bpfpatch.bpf.syscall import NAME_LEN
from bpfpatch.btf import Btf, BtfBuilder, DataSec, Func, FuncLinkage, Kind, SecVar, Var, VarLinkage
from bpfpatch.elf import ElfObject
from bpfpatch.elf.build import DataPart, NewObjectParts, NewVariable, build_object, with_names
from bpfpatch.elf.contents import BTF_MAPS
from bpfpatch.elf.mapdefs import read_definition
from bpfpatch.errors import UnsupportedError
from bpfpatch.facts.kinds import MapFlag, MapType, ProgFlag, ProgType
from bpfpatch.facts.maps import MapDefinition
from bpfpatch.facts.sections import section_of
from bpfpatch.loader.attach import attach_target

from .externs import Externs

_DATA: Final = (".rodata", ".data", ".bss")
_KSYMS: Final = ".ksyms"
_KCONFIG: Final = ".kconfig"
_WAS: Final = ".was"
_ZERO_KEY: Final = bytes(4)
_NO_NAME: Final = re.compile(r"\W")
_KNOWN_FLAGS: Final = ProgFlag.SLEEPABLE | ProgFlag.XDP_HAS_FRAGS
#: Flags that the kernel shows and takes from no loader.
#: Source: linux v6.18, kernel/bpf/devmap.c, dev_map_alloc_check().
_ADDED_FLAGS: Final = dict.fromkeys((MapType.DEVMAP, MapType.DEVMAP_HASH), MapFlag.RDONLY_PROG)
_NEEDS_BTF: Final = frozenset({ProgType.TRACING, ProgType.LSM})


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A load as an object.

    Attributes:
        obj: the object; the slots of its code are those of the load.
        program: the name of its one program.
        maps: the load's maps by what the object calls them, data sections by their name.
        notices: what a file cannot say, as sentences for the user.
    """

    obj: ElfObject
    program: str
    maps: Mapping[str, Map]
    notices: tuple[str, ...]


def captured(request: LoadRequest, *, is_portable: bool = True) -> Captured:
    """Make an object of a load.

    Args:
        request: the load.
        is_portable: whether kernel functions and variables become externs by name, for a
            loader to find; else the instructions keep this kernel's numbers, for us.

    Raises:
        UnsupportedError: it refers to what an object has no way to say.
        KernelError: the kernel does not tell.
    """
    return _Capture(request, is_portable=is_portable).made()


class _Capture:
    def __init__(self, request: LoadRequest, *, is_portable: bool) -> None:
        self._request = request
        self._program = request.program
        self._is_portable = is_portable
        self._insns = self._program.insns.copy()
        self._btf_id = request.btf_id
        self._types = None if request.btf is None else BtfBuilder(request.btf)
        self._uses: dict[int, str] = {}
        self._maps: dict[str, Map] = {}
        self._defs: list[MapDefinition] = []
        self._data: list[DataPart] = []
        self._kept: set[int] = set()
        self._notices: list[str] = []

    def made(self) -> Captured:
        request, section = self._request, self._section()
        self._add_maps()
        externs = Externs(self._insns, request) if self._is_portable else None
        if externs is not None and externs:
            self._types = self._types or BtfBuilder()
            self._uses |= externs.declare(self._types)
        self._settle_sections(externs.declared if externs else None)
        btf = None if self._types is None else with_names(self._types.build(), section)
        external = np.array(sorted(self._uses), np.int32)
        program = replace(self._program, insns=self._insns, columns={}, external=external)
        parts = NewObjectParts(
            program,
            section,
            request.license,
            btf,
            tuple(self._defs),
            tuple(self._data),
            self._uses,
            self._global_functions(),
        )
        if btf is None and (self._defs or program.tables):
            btf = with_names(BtfBuilder().build(), section)
            parts = replace(parts, btf=btf)
        obj = build_object(parts)
        names = [info.name for info in obj.programs]
        return Captured(obj, names[0], self._maps, tuple(self._notices))

    def _section(self) -> str:
        """The section that asks for a program of this type."""
        request = self._request
        target = ""
        attach_btf_id = request.subject.attach_btf_id
        if int(request.call.attr["attach_prog_fd"][0]):
            self._notices.append("it attaches to a program or a module, which a loader has to give")
        elif attach_btf_id and self._is_portable and request.type in _NEEDS_BTF:
            target = attach_target(request.attach_type, attach_btf_id)
        section = section_of(request.type, request.attach_type, request.flags, target)
        if not section:
            raise UnsupportedError(f"no section name means a {request.type.text} program")
        if request.type is ProgType.STRUCT_OPS:
            section = f"{section}/{request.name}"
            self._notices.append("it is of struct_ops, whose table of functions is another map")
        if request.flags & ~_KNOWN_FLAGS:
            self._notices.append(
                f"it was loaded with flags {request.flags:#x}, which no section's name asks for"
            )
        return section

    def _global_functions(self) -> tuple[bool, ...]:
        btf, rows = self._request.btf, self._request.call.code.func_info
        linkage = {}
        for start, type_id in zip(rows["insn_off"].tolist(), rows["type_id"].tolist(), strict=True):
            found = None if btf is None else btf.type(type_id)
            linkage[start] = isinstance(found, Func) and found.linkage == FuncLinkage.GLOBAL
        return tuple(linkage.get(start, False) for start in self._program.subprogs.start.tolist())

    # Maps.

    def _add_maps(self) -> None:
        insns, pseudo = self._insns, isa.Pseudo
        by_fd = dict(zip(self._request.map_fds, self._request.maps, strict=True))
        values = np.flatnonzero(isa.is_pseudo(insns, pseudo.MAP_VALUE))
        plain = np.flatnonzero(isa.is_pseudo(insns, pseudo.MAP_FD))
        as_data = set(insns["imm"][values].tolist())
        both = as_data & set(insns["imm"][plain].tolist())
        if both:
            name = by_fd[both.pop()].name
            raise UnsupportedError(f"map {name!r} is used both as a map and as data")
        names = {
            fd: self._add_data(made) if fd in as_data else self._add_map(made)
            for fd, made in by_fd.items()
        }
        for slot in (*values.tolist(), *plain.tolist()):
            fd = int(insns["imm"][slot])
            self._uses[slot] = names[fd]
            insns["imm"][slot] = insns["imm"][slot + 1] if fd in as_data else 0
            insns["imm"][slot + 1] = 0
            insns["regs"][slot] &= 0xF

    def _add_map(self, made: Map) -> str:
        info = made.info()
        name = self._free_name(self._full_name(info.name), self._maps)
        self._maps[name] = made
        inner = self._inner(made) if info.type in OF_MAPS else None
        self._defs.append(replace(self._definition(info, name), inner=inner))
        return name

    def _definition(self, info: MapInfo, name: str) -> MapDefinition:
        is_own = info.btf_id != 0 and info.btf_id == self._btf_id
        if info.btf_id and not is_own:
            self._notices.append(f"map {info.name!r} has types of another object, left out")
        return MapDefinition(
            name,
            info.type,
            info.key_size,
            info.value_size,
            info.max_entries,
            info.flags & ~_ADDED_FLAGS.get(info.type, 0),
            info.extra,
            key_type_id=info.key_type_id if is_own else 0,
            value_type_id=info.value_type_id if is_own else 0,
        )

    def _inner(self, made: Map) -> MapDefinition:
        """What a map of maps holds: the kernel does not tell.

        It is seen from the first that is in it, or from the definition that the program's types
        have still.
        """
        for _, value in made.items():
            with Map.from_id(int.from_bytes(value, "little")) as held:
                return self._definition(held.info(), f"{made.name}_inner")
        btf = self._request.btf
        found = self._defined().get(self._full_name(made.name))
        if btf is not None and found is not None:
            inner = read_definition(btf, made.name, found.type_id)[0].inner
            if inner is not None:
                return inner
        raise UnsupportedError(
            f"map {made.name!r} holds maps of an unknown kind: no entry shows it yet"
        )

    def _full_name(self, short: str) -> str:
        """The kernel keeps 15 characters; the program's types may know all."""
        if len(short) < NAME_LEN:
            return short
        fitting = [name for name in self._defined() if name.startswith(short)]
        return fitting[0] if len(fitting) == 1 else short

    def _defined(self) -> dict[str, Var]:
        """Maps that the program's types define, by name: those of the object that it is of."""
        btf = self._request.btf
        if btf is None:
            return {}
        found = [
            btf.type(row.type_id)
            for type_id in btf.find(BTF_MAPS, Kind.DATASEC)
            for row in _rows(btf, type_id)
        ]
        return {var.name: var for var in found if isinstance(var, Var)}

    def _free_name(self, wanted: str, taken: Mapping[str, object]) -> str:
        name = _NO_NAME.sub("_", wanted) or "map"
        name = f"_{name}" if name[0].isdigit() else name
        functions = set(self._program.subprogs.names)
        out, number = name, 1
        while out in taken or out in functions:
            number += 1
            out = f"{name}_{number}"
        return out

    # Data.

    def _add_data(self, made: Map) -> str:
        info = made.info()
        if info.type is not MapType.ARRAY or info.max_entries != 1:
            raise UnsupportedError(
                f"map {info.name!r} of type {info.type.text} is used as data, which a section "
                "of an object cannot be"
            )
        content = made.get(_ZERO_KEY) or bytes(info.value_size)
        type_id = self._datasec(info)
        btf = self._request.btf
        was = btf.name_of(type_id) if btf is not None and type_id else ""
        name = self._data_name(was or info.name, made, info, content)
        rows = _rows(btf, type_id) if btf is not None and type_id else ()
        variables = tuple(self._variables(rows))
        if type_id and self._types is not None and btf is not None:
            self._kept.add(type_id)
            found = btf.type(type_id)
            assert isinstance(found, DataSec)
            size = max(found.size, info.value_size)
            self._types.replace(type_id, replace(found, name=name, size=size))
        self._data.append(DataPart(name, content, variables))
        self._maps[name] = made
        return name

    def _datasec(self, info: MapInfo) -> int:
        """The types' section that says what is in a map of data, or 0."""
        btf = self._request.btf
        if btf is None or info.btf_id != self._btf_id or not info.value_type_id:
            return 0
        is_one = isinstance(btf.type(info.value_type_id), DataSec)
        return info.value_type_id if is_one and info.value_type_id not in self._kept else 0

    def _data_name(self, was: str, made: Map, info: MapInfo, content: bytes) -> str:
        """A name that a loader makes such a map of."""
        base = next((one for one in _DATA if was == one or was.startswith(f"{one}.")), "")
        ending = next((one for one in _DATA if was.endswith(one)), "")
        is_const = bool(info.flags & MapFlag.RDONLY_PROG) and is_frozen(made)
        if is_const:
            fits = ".rodata"
        else:
            fits = ".bss" if (base or ending) == ".bss" and not any(content) else ".data"
        name = was if base == fits else (fits if ending == fits else f"{fits}{_dotted(was)}")
        out, number = name, 1
        while out in self._maps:
            number += 1
            out = f"{name}.{number}" if name.count(".") > 1 else f"{fits}.{number}"
        return out

    def _variables(self, rows: tuple[SecVar, ...]) -> list[NewVariable]:
        btf = self._request.btf
        out: list[NewVariable] = []
        if btf is None:
            return out
        for row in rows:
            found = btf.type(row.type_id)
            if isinstance(found, Var) and found.linkage == VarLinkage.GLOBAL:
                out.append(NewVariable(found.name, row.byte_off, row.size))
        return out

    def _settle_sections(self, externs: set[int] | None) -> None:
        """Let types name no section that the object has not, and no variable without a symbol.

        Args:
            externs: types that have become externs; None where there is no section of these.
        """
        btf, types = self._request.btf, self._types
        if btf is None or types is None:
            return
        for type_id in np.flatnonzero(btf.kinds == Kind.DATASEC).tolist():
            found = btf.type(type_id)
            assert isinstance(found, DataSec)
            if type_id in self._kept:
                continue
            if found.name != _KSYMS or externs is None:
                is_taken = found.name in (BTF_MAPS, _KSYMS, _KCONFIG, *self._maps)
                name = found.name + _WAS if is_taken else found.name
                types.replace(type_id, replace(found, name=name))
            for row in found.variables:
                var = btf.type(row.type_id)
                is_shown = isinstance(var, Var) and var.linkage != VarLinkage.STATIC
                if isinstance(var, Var) and is_shown and row.type_id not in (externs or ()):
                    types.replace(row.type_id, replace(var, linkage=VarLinkage.STATIC))


def _rows(btf: Btf, type_id: int) -> tuple[SecVar, ...]:
    found = btf.type(type_id)
    return found.variables if isinstance(found, DataSec) else ()


def _dotted(was: str) -> str:
    text = _NO_NAME.sub("_", was).strip("_")
    return f".{text}" if text else ""
