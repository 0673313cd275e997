"""The facts that a loader has of a program, and its instructions do not show."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch.btf import Btf

from .kinds import ProgType
from .maps import MapFacts


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
