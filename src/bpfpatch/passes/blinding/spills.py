"""Where no register is free: one is saved on the stack around the instruction, or made again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.patch.body import To
from bpfpatch.program.types import Mask, Slots

from ..scratch import Scratch, ScratchPlace
from ..sites import copy_references, place_of
from .forms import form_of_codes, with_register
from .masks import Imms


@dataclass(frozen=True, slots=True, eq=False)
class Crowded:
    """Instructions at which no register is free.

    Attributes:
        view: the code.
        scratch: finds registers in it.
        slots: (k,) where.
        left: (k,) the first number of each constant's pair.
        right: (k,) the second.
        narrow: (k,) whether 32 bits are all that is to be computed.
    """

    view: CodeView
    scratch: Scratch
    slots: Slots
    left: Imms
    right: Imms
    narrow: Mask


def blind_crowded(patches: PatchList, crowded: Crowded, *, spills: bool) -> list[str]:
    """Save a register, put the constant into it, run the instruction on it, and put it back.

    A jump puts it back on both of its paths.

    Returns:
        What has to stay as it is, and why: a sentence for each place, and one for all.
    """
    view, scratch = crowded.view, crowded.scratch
    left = []
    for row, slot in enumerate(crowded.slots.tolist()):
        taken = int(scratch.liveness.reads[slot] | scratch.liveness.writes[slot])
        found: ScratchPlace | str = (
            "no register is free, and spill=false forbids to use another one"
        )
        if spills:
            found = scratch.more(slot, 1, [], taken)
        if isinstance(found, ScratchPlace):
            _blind_around(patches, crowded, row, found)
        else:
            where = place_of(patches, view, slot)
            left.append(f"{where}: cannot blind this constant: {found}")
    return [*left, f"{len(left)} constants are not blinded"] if left else []


def _blind_around(patches: PatchList, crowded: Crowded, row: int, place: ScratchPlace) -> None:
    """Blind one instruction with a register that has to have its value back after it."""
    slot = int(crowded.slots[row])
    view = crowded.view
    width = 32 if crowded.narrow[row] else 64
    (register,) = place.registers
    restores = np.concatenate(place.restores())
    before = np.concatenate(
        [
            *place.saves(),
            isa.alu("mov", register, int(crowded.left[row]), width=width),
            isa.alu("xor", register, int(crowded.right[row]), width=width),
        ]
    )
    insn = view.insns[slot : slot + 1].copy()
    codes = np.ascontiguousarray(insn["code"])
    insn["code"] = with_register(codes, form_of_codes(codes))
    insn["regs"] = (insn["regs"] & 0x0F) | register << 4
    insn["imm"] = 0
    node = int(view.node[slot])
    if not isa.is_cond_jump(insn)[0]:
        patches.insert_before(node, Body(before))
        after = patches.insert_after(node, Body(restores))
        copy_references(patches, view, place, after + len(restores))
        patches.modify(node, code=int(insn["code"][0]), src=register, imm=0)
        return
    # First the constant, then the jump; what it skips gives the register back and goes on.
    jump, on = len(before), len(before) + 1
    taken = on + len(restores) + 1
    body = Body(
        np.concatenate([before, insn, restores, isa.ja(0), restores, isa.ja(0)]),
        labels={taken - 1: To.END, taken + len(restores): To.TARGET},
        locals_={jump: taken},
    )
    first = patches.replace(node, body)
    copy_references(patches, view, place, first + taken - 1)
    copy_references(patches, view, place, first + taken + len(restores))
