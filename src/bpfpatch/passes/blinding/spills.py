"""Where no register is free: one is saved on the stack around the instruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.errors import UnsupportedError
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.patch.body import To
from bpfpatch.program.types import Mask, Slots

from ..sites import place_of
from .forms import form_of_codes, with_register
from .masks import Imms

_WORD: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Crowded:
    """Instructions at which no register is free.

    Attributes:
        view: the code.
        blocks: its blocks.
        slots: (k,) where.
        left: (k,) the first number of each constant's pair.
        right: (k,) the second.
        narrow: (k,) whether 32 bits are all that is to be computed.
    """

    view: CodeView
    blocks: Blocks
    slots: Slots
    left: Imms
    right: Imms
    narrow: Mask


def blind_with_spill(
    patches: PatchList,
    crowded: Crowded,
    liveness: Liveness,
    is_set: NDArray[np.uint16],
    *,
    spills: bool,
) -> None:
    """Save a register, put the constant into it, run the instruction on it, and put it back.

    A jump puts it back on both of its ways.

    Raises:
        UnsupportedError: there is no register that may be saved, or no room on the stack.
    """
    view = crowded.view
    stack = StackUse.of(view, crowded.blocks) if spills else None
    for row, slot in enumerate(crowded.slots.tolist()):
        subprog = int(view.subprog_of(np.array([slot], np.int32))[0])
        wrong = _obstacle(stack, subprog)
        taken = int(liveness.reads[slot] | liveness.writes[slot])
        candidates = int(is_set[slot]) & ~taken & ((1 << isa.R10) - 1)
        if not wrong and not candidates:
            wrong = "and none is certain to be set, so that it could be saved on the stack"
        if wrong:
            raise UnsupportedError(
                f"{place_of(patches, view, slot)}: no register is free for the constant, {wrong}; "
                "leave out blind, or let the function have fewer values alive here"
            )
        assert stack is not None
        register = candidates.bit_length() - 1
        stack_off = -(-(-int(stack.deepest[subprog]) // _WORD) * _WORD + _WORD)
        _spill_around(patches, crowded, row, register, stack_off)


def _obstacle(stack: StackUse | None, subprog: int) -> str:
    """Why nothing can be saved in a function, or ""."""
    if stack is None:
        return "and spill=false forbids to save one on the stack"
    if not stack.is_known[subprog]:
        return "and how much of the stack is in use cannot be told"
    if stack.room[subprog] < _WORD:
        return "and the stack has no room to save one"
    return ""


def _spill_around(
    patches: PatchList, crowded: Crowded, row: int, register: int, stack_off: int
) -> None:
    slot = int(crowded.slots[row])
    view = crowded.view
    width = 32 if crowded.narrow[row] else 64
    reg = isa.Reg(register)
    save = isa.store("u64", isa.R10, stack_off, reg)
    restore = isa.load("u64", register, isa.R10, stack_off)
    pair = (
        isa.alu("mov", register, int(crowded.left[row]), width=width),
        isa.alu("xor", register, int(crowded.right[row]), width=width),
    )
    insn = view.insns[slot : slot + 1].copy()
    codes = np.ascontiguousarray(insn["code"])
    insn["code"] = with_register(codes, form_of_codes(codes))
    insn["regs"] = (insn["regs"] & 0x0F) | register << 4
    insn["imm"] = 0
    node = int(view.node[slot])
    if not isa.is_cond_jump(insn)[0]:
        patches.insert_before(node, Body.of(save, *pair))
        patches.insert_after(node, Body.of(restore))
        patches.modify(node, code=int(insn["code"][0]), src=register, imm=0)
        return
    # 0 save, 1-2 constant, 3 if .. goto 6, 4 restore, 5 goto end, 6 restore, 7 goto target
    body = Body(
        np.concatenate([save, *pair, insn, restore, isa.ja(0), restore, isa.ja(0)]),
        labels={5: To.END, 7: To.TARGET},
        locals_={3: 6},
    )
    patches.replace(node, body)
