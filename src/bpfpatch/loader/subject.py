"""What a loader knows of a program that it loaded, for passes and analyses: a `Subject`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.map import Map, MapInfo, possible_cpus
from bpfpatch.btf import Btf
from bpfpatch.facts.columns import LD_MAP, NONE, column
from bpfpatch.facts.kinds import MapFlag, MapType
from bpfpatch.facts.subject import MapFacts, Subject
from bpfpatch.program import Program

from .object import KernelObject

_FDINFO: Final = Path("/proc/self/fdinfo")
_ZERO_KEY: Final = bytes(4)


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """A program as it was submitted, and what its loader knew.

    Attributes:
        program: flat, relocations applied, with the column ``ld_map``.
        subject: its ``maps`` are what ``ld_map`` counts; behind them stand the inner ones of
            maps of maps (the very objects in `MapFacts.inner`), for ``call_map``.
        map_ids: (k,) int64, number in the kernel of each of the maps, which xlated code shows;
            NONE for an inner one.
        map_names: what the kernel calls each of them.
    """

    program: Program
    subject: Subject
    map_ids: NDArray[np.int64]
    map_names: tuple[str, ...]


def subject_of(opened: KernelObject, loaded: LoadedProgram) -> Subject:
    """The facts of one of an object's programs; maps in the object's order.

    Raises:
        KernelError: the kernel does not tell.
    """
    return submitted(loaded, opened.maps.values(), _types(opened)).subject


def submitted_of(opened: KernelObject, loaded: LoadedProgram) -> Submitted:
    """One of an object's programs, as it was submitted; maps in the object's order.

    Raises:
        KernelError: the kernel does not tell.
    """
    return submitted(loaded, opened.maps.values(), _types(opened))


def submitted(
    loaded: LoadedProgram, maps: Iterable[Map] = (), map_btf: Btf | None = None
) -> Submitted:
    """A program as it was submitted, from what `load` or `KernelObject.load` gave.

    Args:
        loaded: the program.
        maps: all that it may refer to, open.
        map_btf: the types that the maps were made with.

    Raises:
        KernelError: the kernel does not tell.
    """
    given = tuple(maps)
    infos = [made.info() for made in given]
    options = loaded.options
    facts = [map_facts(made, map_btf) for made in given]
    inner = [one.inner for one in facts if one.inner is not None]
    subject = Subject(
        prog_type=loaded.type,
        attach_type=options.attach_type if options else 0,
        maps=(*facts, *inner),
        flags=options.flags if options else 0,
        btf=loaded.btf,
        attach_btf_id=options.attach_btf_id if options else 0,
        is_gpl=loaded.info().is_gpl,
        n_cpus=possible_cpus(),
    )
    program = with_ld_map(loaded.program, [made.fd for made in given])
    ids = [info.id for info in infos] + [NONE] * len(inner)
    # The kernel gives its description of an inner map no name.
    names = [info.name for info in infos] + [""] * len(inner)
    return Submitted(program, subject, np.array(ids, np.int64), tuple(names))


def with_ld_map(program: Program, fds: Iterable[int]) -> Program:
    """A flat program with the column ``ld_map``: which of ``fds`` each ld_imm64 has.

    Args:
        program: with the maps' descriptors in its ld_imm64 instructions.
        fds: the maps' descriptors; the column has an index into these.
    """
    insns = program.insns
    values = np.full(len(insns), NONE, np.int32)
    sites = np.flatnonzero(isa.is_pseudo(insns, isa.Pseudo.MAP_FD, isa.Pseudo.MAP_VALUE))
    known = {fd: index for index, fd in enumerate(fds)}
    values[sites] = [known.get(fd, NONE) for fd in insns["imm"][sites].tolist()]
    return program.with_columns(**{LD_MAP: column(LD_MAP, values)})


def map_facts(made: Map, btf: Btf | None = None) -> MapFacts:
    """The facts of one map.

    Args:
        made: the map, open.
        btf: the types that it was made with.

    Raises:
        KernelError: the kernel does not tell.
    """
    info = made.info()
    facts = _from_info(info, btf)
    inner = None if made.inner is None else _from_info(made.inner, btf)
    return replace(facts, name=made.name, content=_constant(made, info), inner=inner)


def _from_info(info: MapInfo, btf: Btf | None) -> MapFacts:
    has_types = btf is not None and info.value_type_id != 0
    return MapFacts(
        name=info.name,
        type=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.flags,
        btf=btf if has_types else None,
        value_type=info.value_type_id if has_types else 0,
    )


def _constant(made: Map, info: MapInfo) -> bytes | None:
    """The value of a map whose value the verifier takes for constant.

    Source: linux v6.1, kernel/bpf/verifier.c, bpf_map_is_rdonly(), and
    kernel/bpf/arraymap.c, array_map_direct_value_addr().
    """
    is_single = info.type is MapType.ARRAY and info.max_entries == 1
    if not (is_single and info.flags & MapFlag.RDONLY_PROG and _is_frozen(made)):
        return None
    return made.get(_ZERO_KEY)


def _is_frozen(made: Map) -> bool:
    try:
        text = (_FDINFO / str(made.fd)).read_text()
    except OSError:
        return False
    fields: dict[str, Any] = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return str(fields.get("frozen", "")).strip() == "1"


def _types(opened: KernelObject) -> Btf | None:
    return None if opened.btf is None else opened.btf.btf
