"""The facts that a loader has of a program, and its instructions do not show."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.btf import Btf

from .kinds import MapType, ProgType


@dataclass(frozen=True, slots=True)
class MapFacts:
    """A map that a program refers to.

    Attributes:
        name: of the map.
        type: its kind.
        key_size: in bytes.
        value_size: in bytes.
        max_entries: how many elements it may have.
        flags: BPF_F_* of its creation.
        content: the value of a frozen, read-only array of one element: constants that the
            verifier reads. None for others.
        inner: for a map of maps, the kind of map in it.
        btf: what ``value_type`` refers to; None where the map has no types.
        value_type: id of the value's type.
        address: of an arena, where it starts for user space; 0 where that is not known.
    """

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    content: bytes | None = None
    inner: MapFacts | None = None
    btf: Btf | None = None
    value_type: int = 0
    address: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """A program as its loader describes it.

    Attributes:
        prog_type: its kind; decides what R1 points to and which helpers there are.
        attach_type: the number of where it will attach, for kinds whose rules depend on it.
        maps: the maps that the column ``ld_map`` has indices of.
        flags: BPF_F_* of its loading, see `ProgFlag`.
        btf: the program's own types.
        attach_btf_id: the type of what a tracing program attaches to, in the kernel's BTF.
        is_gpl: whether its license lets it call all helpers.
        n_cpus: how many processors the machine that it is for may have; None where that is
            not known.
    """

    prog_type: ProgType = ProgType.SOCKET_FILTER
    attach_type: int = 0
    maps: tuple[MapFacts, ...] = ()
    flags: int = 0
    btf: Btf | None = None
    attach_btf_id: int = 0
    is_gpl: bool = True
    n_cpus: int | None = None
