"""The form that bpf(2) accepts: constants are put together in registers that are free."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask, Slots, gather

from ..kfuncs import arguments_taken, checked_alone
from ..scratch import Scratch
from ..sites import (
    UNWOUND,
    copyable_slots,
    indirect_targets,
    opaque_slots,
    place_of,
    unwound,
)
from .forms import Form, Forms, by_register, forms_of, halves, is_narrow, slots_where, with_register
from .masks import Imms, Masks
from .spills import Crowded, blind_crowded

_XOR: Final = 0xA0
_OP: Final = 0xF0
_JEQ, _JNE = 0x15, 0x55


def blind_loadable(patches: PatchList, masks: Masks, *, spills: bool, btf: Btf | None) -> list[str]:
    """Blind all constants with registers that hold nothing anybody reads.

    Left alone is what a loader fills in or checks, zeros in moves and in
    comparisons for equality (a zero hides nothing, and the verifier takes the
    latter for checks against NULL only in this form), and what `forms_of`
    says has none.

    Returns:
        What has to stay as it is, for no register is free, nor can be made so: a sentence
        for each, and one for all.
    """
    view = patches.view()
    forms = forms_of(view)
    forms[opaque_slots(patches, view) | _keeps(view, forms)] = Form.NONE
    in_place = _in_place(view, forms)
    through = (forms != Form.NONE) & (forms != Form.LD_IMM64) & ~in_place
    slots = slots_where(through)
    is_odd = unwound(patches.program, view)[view.subprog_of(slots)]
    left = [f"{place_of(patches, view, slot)}: {UNWOUND}" for slot in slots[is_odd].tolist()]
    slots = slots[~is_odd]
    if slots.size:
        left += _through_register(patches, view, forms, slots, masks, spills=spills, btf=btf)
    for is_32 in (False, True):
        slots = slots_where(in_place & (is_narrow(forms) == is_32))
        _twice(patches, view, slots, masks, width=32 if is_32 else 64)
    _wide(patches, view, slots_where(forms == Form.LD_IMM64), masks)
    return left


def _keeps(view: CodeView, forms: Forms) -> Mask:
    """(n,) whether blinding would hide nothing, or more than it should."""
    insns = view.insns
    code = insns["code"]
    is_zero = insns["imm"] == 0
    out: Mask = is_zero & ((forms == Form.MOV32) | (forms == Form.MOV64))
    out |= is_zero & ((code == _JEQ) | (code == _JNE))
    out |= (forms == Form.LD_IMM64) & (isa.src(insns) != isa.Pseudo.NUMBER)
    return out


def _in_place(view: CodeView, forms: Forms) -> Mask:
    """(n,) whether the destination register itself can take the constant: moves and xors."""
    is_xor = (view.insns["code"] & _OP) == _XOR
    out: Mask = (forms == Form.MOV32) | (forms == Form.MOV64)
    out |= is_xor & ((forms == Form.ALU32) | (forms == Form.ALU64))
    return out


def _twice(patches: PatchList, view: CodeView, slots: Slots, masks: Masks, *, width: int) -> None:
    """`r1 = C` becomes `r1 = A; r1 ^= B`, and `r1 ^= C` becomes `r1 ^= A; r1 ^= B`."""
    if not slots.size:
        return
    words, nodes = gather(isa.words(view.insns), slots), gather(view.node, slots)
    left, right = masks.pair(words.view(np.int32)[1::2])
    for register, rows in by_register(words.view(isa.INSN)):
        body = Body.of(isa.alu("xor", register, 0, width=width))
        patches.insert_after(nodes[rows], body, {0: right[rows]})
    patches.modify(nodes, imm=left)


def _wide(patches: PatchList, view: CodeView, slots: Slots, masks: Masks) -> None:
    """`r1 = C ll`, with r1 alone: the upper half, shifted into place, then the lower one xored in.

    An immediate of xor is sign-extended. Where the lower half has its highest
    bit set, that flips all of the upper half, which is flipped beforehand.
    """
    low, high = halves(view, slots)
    high = np.where(low < 0, ~high, high)
    pairs = (*masks.pair(high), *masks.pair(low))
    for register, rows in by_register(view.insns[slots]):
        body = Body.of(
            isa.mov(register, 0),
            isa.alu("xor", register, 0),
            isa.alu("lsh", register, 32),
            isa.alu("xor", register, 0),
            isa.alu("xor", register, 0),
        )
        imms = {at: values[rows] for at, values in zip((0, 1, 3, 4), pairs, strict=True)}
        patches.replace(view.node[slots[rows]], body, imms)


def _through_register(
    patches: PatchList,
    view: CodeView,
    forms: Forms,
    slots: Slots,
    masks: Masks,
    *,
    spills: bool,
    btf: Btf | None,
) -> list[str]:
    """First the constant in a free register, then the same instruction on that register."""
    blocks = Blocks.of(view, indirect_targets(patches.program, view))
    scratch = Scratch(
        view,
        blocks,
        opaque=opaque_slots(patches, view),
        copyable=copyable_slots(patches, view),
        takes=arguments_taken(view, patches.program, btf),
        checked=checked_alone(view, patches.program, btf),
    )
    free = scratch.liveness.free()[slots]
    lowest = free & -free.astype(np.int32)
    left, right = masks.pair(view.insns["imm"][slots])
    narrow = is_narrow(forms[slots])
    code = with_register(np.ascontiguousarray(view.insns["code"][slots]), forms[slots])
    for bit in np.unique(lowest[lowest != 0]).tolist():
        register = bit.bit_length() - 1
        for is_32 in (False, True):
            rows = np.flatnonzero((lowest == bit) & (narrow == is_32))
            _pair_in_front(
                patches, view.node[slots[rows]], register, left[rows], right[rows], is_32
            )
            patches.modify(view.node[slots[rows]], code=code[rows], src=register, imm=0)
    rows = np.flatnonzero(lowest == 0)
    if not rows.size:
        return []
    crowded = Crowded(view, scratch, slots[rows], left[rows], right[rows], narrow[rows])
    return blind_crowded(patches, crowded, spills=spills)


def _pair_in_front(
    patches: PatchList, nodes: Slots, register: int, left: Imms, right: Imms, is_32: bool
) -> None:
    """`r = A; r ^= B` in front of nodes."""
    width = 32 if is_32 else 64
    body = Body.of(
        isa.alu("mov", register, 0, width=width), isa.alu("xor", register, 0, width=width)
    )
    patches.insert_before(nodes, body, {0: left, 1: right})
