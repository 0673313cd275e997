"""What several passes ask of a list: where jumps may go, what a loader will change, places."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import Where
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import JUMP_TABLE, LOST, Anchor, Program
from bpfpatch.program.types import Mask, Slots


def opaque_slots(patches: PatchList, view: CodeView) -> Mask:
    """(n,) slots that a loader fills in or checks: relocations, CO-RE records and the like.

    Nobody knows their immediate yet, and nobody may change the instruction.
    """
    program = patches.program
    by_node = np.zeros(len(program) + 1, bool)  # the last one answers for inserted nodes
    by_node[program.external] = True
    for table in program.tables.values():
        if table.anchor is Anchor.OWN:
            by_node[table.insn] = True
    opaque: Mask = by_node[np.where(view.node < view.n_original, view.node, -1)]
    return opaque | np.isin(view.node, patches.attached())


def indirect_targets(program: Program, view: CodeView) -> Slots:
    """Slots that jump tables name: where a gotox may go."""
    table = program.tables.get(JUMP_TABLE)
    if table is None:
        return np.zeros(0, np.int32)
    landing: Slots = view.land[table.insn]
    found: Slots = landing[landing != LOST]
    return found


def place_of(patches: PatchList, view: CodeView, slot: int) -> Where:
    """The place of an instruction of a view, for an error message."""
    node = int(view.node[slot])
    if node < view.n_original:
        return patches.program.where(node)
    subprog = int(view.subprog[int(view.subprog_of(np.array([slot], np.int32))[0])])
    name = patches.program.subprogs.names[subprog]
    return Where(slot, name, text=isa.describe(view.insns, slot) + ", which a pass inserted,")
