"""What several passes ask of a list: where jumps may go, what a loader will change, places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.elf.space import SYMBOL_TABLE
from bpfpatch.elf.symtab import STB_LOCAL
from bpfpatch.errors import Where
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import JUMP_TABLE, LANDING_PAD, LOST, Anchor, Program
from bpfpatch.program.types import Mask, Slots

if TYPE_CHECKING:
    from .scratch import ScratchPlace


def opaque_slots(patches: PatchList, view: CodeView) -> Mask:
    """(n,) slots that a loader fills in or checks: relocations, CO-RE records and the like.

    Their immediate is not known yet, and the instruction must stay as it is.
    """
    program = patches.program
    by_node = np.zeros(len(program) + 1, bool)  # the last one answers for inserted nodes
    by_node[program.external] = True
    for table in program.tables.values():
        if table.anchor is Anchor.OWN:
            by_node[table.insn] = True
    opaque: Mask = by_node[np.where(view.node < view.n_original, view.node, -1)]
    return opaque | np.isin(view.node, patches.attached())


def copyable_slots(patches: PatchList, view: CodeView) -> Mask:
    """(n,) slots of ld_imm64 that name a map, a variable or a number of the kernel's.

    What stands there may be put somewhere else, too, with a copy of its relocation. CO-RE
    records and functions are not among them.
    """
    program = patches.program
    out: Mask = isa.is_ld_imm64(view.insns) & (view.node >= 0) & (view.node < view.n_original)
    out[view.ref_slot] = False
    taken = np.zeros(len(program) + 1, bool)
    taken[program.external] = True
    for name, table in program.tables.items():
        if table.anchor is Anchor.OWN and name != "reloc":
            taken[table.insn] = True
    known = np.zeros(len(program) + 1, bool)
    if "reloc" in program.tables:
        known[program.tables["reloc"].insn] = True
    node = np.where(view.node < view.n_original, view.node, -1)
    out &= ~taken[node] & (known[node] | (isa.src(view.insns) != 0))
    return out & ~np.isin(view.node, patches.attached())


def copy_references(patches: PatchList, view: CodeView, place: ScratchPlace, end: int) -> None:
    """Give what is remade at the end of a body the relocations of what it is a copy of.

    Args:
        patches: the list.
        view: its code when the place was found.
        place: which.
        end: the node after the last one that makes something again.
    """
    if place.remakes is None or not place.loads:
        return
    table = patches.program.tables["reloc"]
    for at, slot in place.loads:
        node = int(view.node[slot])
        for row in np.flatnonzero(table.insn == node).tolist():
            patches.attach("reloc", end - len(place.remakes) + at, table.rows[row])


def indirect_targets(program: Program, view: CodeView) -> Slots:
    """Slots that jump tables name: where a gotox may go."""
    return _named(program, view, JUMP_TABLE)


def landing_pads(program: Program, view: CodeView) -> Slots:
    """Slots to which control comes without a jump, when the program is unwound."""
    return _named(program, view, LANDING_PAD)


UNWOUND: Final = (
    "its function has a landing pad, where control comes without a jump, and nothing says what a "
    "kernel leaves in registers there"
)


def unwound(program: Program, view: CodeView) -> Mask:
    """(m,) subprogs of the view that have landing pads."""
    out = np.zeros(len(view.starts), bool)
    out[view.subprog_of(landing_pads(program, view))] = True
    return out


def _named(program: Program, view: CodeView, name: str) -> Slots:
    table = program.tables.get(name)
    if table is None:
        return np.zeros(0, np.int32)
    landing: Slots = view.land[table.insn]
    found: Slots = landing[landing != LOST]
    return found


def global_functions(program: Program, obj: ElfObject) -> Mask:
    """(m,) functions that other objects and programs may get to call or replace."""
    table = program.tables[SYMBOL_TABLE]
    rows = zip(table.insn.tolist(), table.rows["sym"].tolist(), strict=True)
    slots = [slot for slot, symbol in rows if obj.symbols[symbol].bind != STB_LOCAL]
    out = np.zeros(len(program.subprogs), bool)
    out[program.subprogs.of(np.array(slots, np.int32))] = True
    return out


def place_of(patches: PatchList, view: CodeView, slot: int) -> Where:
    """The place of an instruction of a view, for an error message."""
    node = int(view.node[slot])
    if node < view.n_original:
        return patches.program.where(node)
    subprog = int(view.subprog[int(view.subprog_of(np.array([slot], np.int32))[0])])
    name = patches.program.subprogs.names[subprog]
    return Where(slot, name, text=isa.describe(view.insns, slot) + ", which a pass inserted,")
