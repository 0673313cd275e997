"""Array types and constants that the whole project shares."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

Insns = NDArray[Any]
"""(n,) of `bpfpatch.isa.INSN`."""

Slots = NDArray[np.int32]
"""Instruction indices, as in the kernel; an ld_imm64 takes two."""

Mask = NDArray[np.bool_]

INSERTED: Final = -1
"""In ``orig``: an edit put this instruction in. The RFC's -1."""

DELETED: Final = -2
"""In ``own``: the instruction was deleted. The RFC's -2."""

REPLACED: Final = -3
"""In ``own``: a body that does not keep it took the instruction's place."""

LOST: Final = -1
"""In ``land`` and ``entry``: deleted, with nothing after it in its subprog."""


def frozen(values: Any, dtype: DTypeLike) -> NDArray[Any]:
    """A read-only array of this dtype; no copy where it is one already."""
    array = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
