"""Addresses that the kernel writes into instructions, and that are not known outside it.

Where a fixup puts one in, our form has 0, and the column ``address`` says
whose address belongs there: that, and nothing else, is to be left out of a
comparison with the kernel's own code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import OptionError
from bpfpatch.patch import PatchList
from bpfpatch.program import Column

ADDRESS: Final = "address"


class Address(IntEnum):
    """Whose address an instruction's constant is."""

    NONE = 0
    JIFFIES = 1  # symbol jiffies
    CPU_NUMBER = 2  # lower half of the per-CPU symbol cpu_number
    PROG_AUX = 3  # the program's own struct bpf_prog_aux
    STRUCT_META = 4  # the record of special fields of one of the program's types
    SYMBOL = 5  # of a variable or function that a ld_imm64 names by its type


def addresses(patches: PatchList) -> NDArray[np.uint8]:
    """The column of `Address` by node, writable until the next edit; added where absent."""
    if not _has_column(patches):
        nothing = np.zeros(len(patches.program), np.uint8)
        patches.add_column(ADDRESS, Column(nothing, int(Address.NONE)))
    values: NDArray[np.uint8] = patches.aux(ADDRESS)
    return values


def _has_column(patches: PatchList) -> bool:
    try:
        patches.aux(ADDRESS)
    except OptionError:
        return False
    return True
