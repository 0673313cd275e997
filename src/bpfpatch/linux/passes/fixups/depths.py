"""The table of stack depths: how far down each subprog's frame reaches, as passes change it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import OptionError
from bpfpatch.facts.columns import STACK_DEPTH
from bpfpatch.patch import PatchList

_WORD = 8


def stack_depths(patches: PatchList) -> NDArray[np.int32]:
    """(m,) bytes by subprog of the original program, rounded up to whole slots; a fresh array.

    Raises:
        OptionError: the program has no such table, or no row for one of its subprogs.
    """
    program = patches.program
    table = program.tables.get(STACK_DEPTH)
    if table is None or not np.isin(program.subprogs.start, table.insn).all():
        raise OptionError(
            f"table {STACK_DEPTH!r} with a row at each subprog's start is needed, to know "
            "where its frame ends"
        )
    rows = np.searchsorted(table.insn, program.subprogs.start)
    depths: NDArray[np.int32] = table.rows[rows].astype(np.int32)
    return (depths + _WORD - 1) // _WORD * _WORD


def set_stack_depths(patches: PatchList, depths: NDArray[np.int32]) -> None:
    """Write depths back, so that later passes and the result's table have them.

    Args:
        patches: the list.
        depths: (m,) by subprog of the original program.
    """
    table = patches.program.tables[STACK_DEPTH]
    rows = table.rows.copy()
    rows[np.searchsorted(table.insn, patches.program.subprogs.start)] = depths
    patches.set_rows(STACK_DEPTH, rows)
