"""What a load's frozen maps hold: constants of the program, since nothing writes them any more.

Source: linux v6.18, kernel/bpf/verifier.c, bpf_map_is_rdonly() and check_mem_access(): a load
from such a map is a known number to the verifier, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.constants import Address, Data
from bpfpatch.errors import OptionError
from bpfpatch.facts.columns import LD_MAP, NONE
from bpfpatch.facts.subject import Subject
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import Slots


def frozen_data(patches: PatchList, view: CodeView, subject: Subject) -> Data:
    """The contents of a program's frozen, read-only maps, as constants that code can read.

    An `Address` in it has the map's index in ``subject.maps`` for a section.
    """
    contents = {
        index: one.content for index, one in enumerate(subject.maps) if one.content is not None
    }

    def read(address: Address, size: int) -> int | None:
        content = contents.get(address.section, b"")
        first, end = address.byte_off, address.byte_off + size
        if first < 0 or end > len(content):
            return None
        return int.from_bytes(content[first:end], sys.byteorder)  # it runs on this machine

    places = ((slot, one) for slot, one in _places(patches, view) if one.section in contents)
    return Data(dict(places), read)


def _places(patches: PatchList, view: CodeView) -> Iterator[tuple[int, Address]]:
    """Loads of addresses in a map's only value, and which map's."""
    maps = _map_of(patches)
    is_place = isa.is_pseudo(view.insns, isa.Pseudo.MAP_VALUE, isa.Pseudo.MAP_IDX_VALUE)
    for slot in np.flatnonzero(is_place & (view.node >= 0)).tolist():
        index = int(maps[view.node[slot]])
        if index != NONE:
            yield slot, Address(index, int(view.insns["imm"][slot + 1]) & 0xFFFF_FFFF)


def _map_of(patches: PatchList) -> Slots:
    """By node, the index of the map that an ld_imm64 is of."""
    try:
        out: Slots = patches.aux(LD_MAP)
    except OptionError as error:
        raise OptionError(
            f"the program does not say which maps it uses: it has no column {LD_MAP!r}"
        ) from error
    return out
