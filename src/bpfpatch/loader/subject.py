"""What a loader knows of a program that it loaded, for passes and analyses: a `Subject`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.map import Map, possible_cpus
from bpfpatch.bpf.mapfacts import map_facts, with_ld_map
from bpfpatch.btf import Btf
from bpfpatch.facts.columns import NONE
from bpfpatch.facts.subject import Subject
from bpfpatch.program import Program

from .object import KernelObject


@dataclass(frozen=True, slots=True, eq=False)
class Submitted:
    """A program as it was submitted, and what its loader knew.

    Attributes:
        program: flat, relocations applied, with the column ``ld_map``.
        subject: its ``maps`` are what ``ld_map`` counts; after them stand the inner ones of
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


def _types(opened: KernelObject) -> Btf | None:
    return None if opened.btf is None else opened.btf.btf
