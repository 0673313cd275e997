"""What a map is, wherever it stands: in an object, in the kernel, on the simulated machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfpatch.btf import Btf

from .kinds import MapType

MAX_VALUE: Final = (1 << 31) - 1
"""Bytes of a value, and so of a data section, which is an array of one."""


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """How to make a map.

    Attributes:
        name: what the code calls it; of an inner map the outer one's with ``.inner``, of a data
            section the section's. The kernel keeps 15 characters.
        type: its kind.
        key_size: bytes; 4 for arrays.
        value_size: bytes; of a per-CPU map of one CPU's, and 4 where it starts with ``values``.
        max_entries: how many fit.
        flags: BPF_F_* bits.
        extra: map_extra, whose meaning the kind defines.
        numa_node: where, with the flag for it.
        key_type_id: the keys' type, in the types that the map is made with; 0 for none.
        value_type_id: the values', likewise.
        inner: what a map of maps holds, where that is known.
        values: (index, name) of the maps or programs that it starts with.
        content: what entry 0 of a data section's starts with; zeros follow. None otherwise.
        is_frozen: whether user space may no longer change it after that.
        kernel_name: what the kernel shows in place of the name; "" for the name, as far as it
            fits.
    """

    name: str
    type: MapType
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    flags: int = 0
    extra: int = 0
    numa_node: int = 0
    key_type_id: int = 0
    value_type_id: int = 0
    inner: MapDefinition | None = None
    values: tuple[tuple[int, str], ...] = ()
    content: bytes | None = None
    is_frozen: bool = False
    kernel_name: str = ""


@dataclass(frozen=True, slots=True)
class MapFacts(MapDefinition):
    """A map that a program refers to, as passes and the analysis of values see it.

    Its ``content`` is there for a frozen, read-only array of one element only: constants that
    the verifier reads.

    Attributes:
        inner: for a map of maps, the kind of map in it.
        btf: what the ids of types refer to; None where the map has no types.
        address: of an arena, where it starts for user space; 0 where that is not known.
    """

    inner: MapFacts | None = None
    btf: Btf | None = None
    address: int = 0
