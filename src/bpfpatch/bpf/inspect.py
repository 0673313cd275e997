"""A program that is in the kernel already, with the names of all that it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bpfpatch.btf import Btf, Func
from bpfpatch.errors import OptionError
from bpfpatch.facts.columns import LD_MAP, NONE, column
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.program import Program, Subprogs

from .errors import KernelError
from .loaded import LoadedProgram
from .loadedbtf import read_btf_by_id
from .map import Map, MapInfo
from .mapfacts import map_facts
from .pinned import pinned
from .proginfo import ProgInfo
from .xlated import XlatedProgram, read_xlated


@dataclass(frozen=True, slots=True)
class InspectedProgram:
    """What the kernel tells of a loaded program.

    Attributes:
        info: its facts.
        program: its code as the verifier left it, functions named where it has types.
        calls: by slot, name of the function of the kernel that is called.
        maps: those that it uses.
        map_names: by slot of each ld_imm64 of a map, its name.
        btf: its types, or None.
        subject: what passes may know of it, such as what its frozen maps hold.
    """

    info: ProgInfo
    program: Program
    calls: Mapping[int, str]
    maps: tuple[MapInfo, ...]
    map_names: Mapping[int, str]
    btf: Btf | None
    subject: Subject

    @property
    def names(self) -> dict[int, str]:
        """By slot, what an instruction refers to outside of the code."""
        return {**self.calls, **self.map_names}


def inspect_program(prog_id: int) -> InspectedProgram:
    """Read a loaded program back.

    Raises:
        KernelError: there is none of this id, or the kernel withholds its code.
        UnsupportedError: its functions cannot be told apart.
    """
    with LoadedProgram.from_id(prog_id) as loaded:
        info = loaded.info()
        btf = read_btf_by_id(info.btf_id) if info.btf_id else None
        loaded.btf = btf
        found = read_xlated(loaded)
        maps = {int(map_id): _map_info(int(map_id)) for map_id in info.map_ids.tolist()}
        facts = tuple(_map_facts(one) for one in maps.values())
    index_of = {map_id: index for index, map_id in enumerate(maps)}
    ld_map = [index_of.get(map_id, NONE) for map_id in found.map_ids.tolist()]
    program = _named(found, info, btf)
    return InspectedProgram(
        info,
        program.with_columns(**{LD_MAP: column(LD_MAP, np.array(ld_map, np.int32))}),
        {slot: _one(names) for slot, names in found.call_names.items() if names},
        tuple(maps.values()),
        _map_names(found, maps),
        btf,
        Subject(info.type, maps=facts, btf=btf, is_gpl=info.is_gpl),
    )


def _map_facts(info: MapInfo) -> MapFacts:
    with Map.from_id(info.id) as opened:
        return map_facts(opened, read_btf_by_id(info.btf_id) if info.btf_id else None)


def _map_info(map_id: int) -> MapInfo:
    with Map.from_id(map_id) as opened:
        return opened.info()


def _one(names: frozenset[str]) -> str:
    """Of several names for one address that which looks like BPF's."""
    return min(names, key=lambda name: (not name.startswith("bpf_"), name))


def _named(found: XlatedProgram, info: ProgInfo, btf: Btf | None) -> Program:
    subprogs = found.program.subprogs
    names = [info.name if index == 0 else "" for index in range(len(subprogs))]
    if btf is not None:
        for index, type_id in enumerate(info.func_info["type_id"].tolist()[: len(names)]):
            func = btf.type(type_id)
            names[index] = func.name if isinstance(func, Func) else names[index]
    section = np.zeros(len(subprogs), np.int32)
    return replace(found.program, subprogs=Subprogs(subprogs.start, tuple(names), section))


def _map_names(found: XlatedProgram, maps: Mapping[int, MapInfo]) -> dict[int, str]:
    out = {}
    for slot in np.flatnonzero(found.map_ids != NONE).tolist():
        map_id = int(found.map_ids[slot])
        known = maps.get(map_id)
        out[slot] = known.name if known is not None and known.name else f"map {map_id}"
    return out


def program_at(path: str) -> int:
    """The id of the program that is pinned at a path.

    Raises:
        OptionError: a map is, or something else.
        KernelError: nothing is, or the kernel refused.
    """
    kind, found = pinned(path)
    if kind != "program":
        raise OptionError(f"a {kind} is pinned there, and no program")
    return found


@dataclass(frozen=True, slots=True)
class Pin:
    """Something that is pinned.

    Attributes:
        path: where.
        kind: ``program``, ``map``, ``folder``; or "" for what is neither, such as a link.
        id: its number, or 0.
        name: up to 15 characters.
        type: its type.
    """

    path: str
    kind: str
    id: int = 0
    name: str = ""
    type: str = ""


def pins_in(folder: str) -> list[Pin]:
    """What is in a folder of the bpf file system, by name.

    Raises:
        OSError: it cannot be listed.
    """
    return [_pin(path) for path in sorted(Path(folder).iterdir())]


def _pin(path: Path) -> Pin:
    if path.is_dir():
        return Pin(str(path), "folder")
    try:
        kind, number = pinned(str(path))
        if kind == "map":
            info = _map_info(number)
            return Pin(str(path), kind, number, info.name, info.type.text)
        with LoadedProgram.from_id(number) as loaded:
            return Pin(str(path), kind, number, loaded.name, loaded.type.text)
    except (OptionError, KernelError):
        return Pin(str(path), "")
