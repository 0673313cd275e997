"""Array types and constants that the whole project shares."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bpfpatch import isa

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


def gather(values: NDArray[Any], index: NDArray[Any]) -> NDArray[Any]:
    """``values[index]`` for a one-dimensional index that is known to be in range.

    What is not is answered by the first or last element, for the caller to put right.

    NumPy turns int32 indices into int64 ones first; done in portions, those stay
    in the cache instead of taking twice the index's memory.
    """
    out = np.empty((index.size, *values.shape[1:]), values.dtype)
    for part in isa.portions(index.size):
        values.take(index[part], axis=0, out=out[part], mode="clip")
    return out


def scatter(values: NDArray[Any], index: NDArray[Any], given: NDArray[Any]) -> None:
    """``values[index] = given``, in portions for the same reason."""
    for part in isa.portions(index.size):
        values[index[part]] = given[part]


def compress(values: NDArray[Any], mask: Mask) -> NDArray[Any]:
    """``values[mask]``, or the very array where the mask is set everywhere."""
    return values if mask.all() else values[mask]


def ascends(values: NDArray[Any]) -> bool:
    """Whether each value is greater than the one before it."""
    parts = (values[part] for part in isa.portions(values.size, overlap=1))
    return all((part[1:] > part[:-1]).all() for part in parts)


def fixed(values: NDArray[Any]) -> NDArray[Any]:
    """A read-only array with no writable alias: a copy, unless it is one already."""
    base: Any = values
    while type(base) is np.ndarray and not base.flags.writeable:
        if base.base is None:
            return values
        base = base.base
    copy = np.array(values)
    copy.flags.writeable = False
    return copy


def frozen(values: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """A read-only array, of this dtype if one is named; no copy where it is one already."""
    array = np.asarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
