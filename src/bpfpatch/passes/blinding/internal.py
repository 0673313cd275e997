"""The kernel's own form: constants are put together in its hidden register."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.passes.addresses import ADDRESS, Address, addresses
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask, Slots, gather

from .forms import Form, Forms, by_register, forms_of, halves, is_narrow, slots_where, with_register
from .masks import Masks

_XOR64_REG: Final = 0xAF
_MOV32_REG: Final = 0xBC
_LOW: Final = 4
"""Where in the body of an ld_imm64 its lower half is."""


def blind_internal(patches: PatchList, masks: Masks, hidden: isa.Reg, *, extends: bool) -> None:
    """Blind all constants with the hidden register.

    Args:
        patches: the list.
        masks: where random numbers come from.
        hidden: the kernel's own register.
        extends: whether 32-bit results need explicit zero extensions.

    Source: linux v6.18, kernel/bpf/core.c, bpf_jit_blind_insn() and bpf_jit_blind_constants().
    """
    view = patches.view()
    forms = forms_of(view)
    kinds = _addresses(patches, view)
    is_zero = (forms == Form.MOV32) | (forms == Form.MOV64)
    is_zero &= view.insns["imm"] == 0
    if kinds is not None:  # an address that is not known yet is no zero
        is_zero &= kinds == Address.NONE
    wide = slots_where(forms == Form.LD_IMM64)
    narrow = is_narrow(forms)
    forms[is_zero] = Form.NONE
    others = (forms != Form.NONE) & (forms != Form.LD_IMM64)
    found = []
    for is_some, width in ((narrow, 32), (~narrow, 64)):
        pair = Body.of(
            isa.alu("mov", hidden, 0, width=width), isa.alu("xor", hidden, 0, width=width)
        )
        slots = slots_where(others & is_some)
        found.append((slots, _through_register(patches, view, slots, forms, pair, masks)))
    _zeros(patches, view, is_zero)
    found.append((wide, _wide(patches, view, wide, masks, hidden, extends=extends)))
    if kinds is not None:
        _move_addresses(patches, view, kinds, found)


def _addresses(patches: PatchList, view: CodeView) -> NDArray[np.uint8] | None:
    """(n,) whose address each constant is, see `bpfpatch.passes.addresses`."""
    try:
        values = patches.aux(ADDRESS)
    except OptionError:
        return None
    kinds: NDArray[np.uint8] = np.where(view.node >= 0, values[view.node], Address.NONE)
    return kinds


def _move_addresses(
    patches: PatchList,
    view: CodeView,
    kinds: NDArray[np.uint8],
    found: list[tuple[Slots, Slots]],
) -> None:
    """Say of the constants in the hidden register, and of nothing else, whose address they are.

    Args:
        patches: the list.
        view: the code as it was.
        kinds: (n,) whose address each constant was.
        found: slots of blinded constants and the nodes of what they are put together from:
            narrow ones, others, and at last the wide ones.
    """
    for slots, firsts in found:
        rows = np.flatnonzero(kinds[slots] != Address.NONE)
        if not rows.size:
            continue
        of_rows = kinds[slots[rows]]
        values = addresses(patches)
        values[view.node[slots[rows]]] = Address.NONE
        values[firsts[rows]] = of_rows
        if slots is found[-1][0]:
            values[firsts[rows] + _LOW] = of_rows


def _through_register(
    patches: PatchList, view: CodeView, slots: Slots, forms: Forms, pair: Body, masks: Masks
) -> Slots:
    """In front the constant in the register of the pair, then the same instruction on it.

    Returns:
        (k,) nodes of the constants.
    """
    if not slots.size:
        return slots
    words = gather(isa.words(view.insns), slots)
    nodes = gather(view.node, slots)
    left, right = masks.pair(words.view(np.int32)[1::2])
    first = patches.insert_before(nodes, pair, {0: left, 1: right})
    code = with_register(words.astype(np.uint8), gather(forms, slots))
    patches.modify(nodes, code=code, src=isa.dst(pair.insns)[0], imm=0)
    return np.asarray(first, np.int32)


def _zeros(patches: PatchList, view: CodeView, is_zero: Mask) -> None:
    """`r1 = 0` becomes `r1 ^= r1`, also where only 32 bits were zeroed."""
    slots = slots_where(is_zero)
    patches.modify(view.node[slots], code=_XOR64_REG, src=isa.dst(view.insns[slots]))


def _wide(
    patches: PatchList,
    view: CodeView,
    slots: Slots,
    masks: Masks,
    hidden: isa.Reg,
    *,
    extends: bool,
) -> Slots:
    """The upper half first, shifted into place, then the lower one.

    Returns:
        (k,) nodes of the upper halves; the lower ones are `_LOW` behind.
    """
    out = np.zeros(slots.size, np.int32)
    low, high = halves(view, slots)
    high_left, high_right = masks.pair(high)
    low_left, low_right = masks.pair(low)
    for register, rows in by_register(view.insns[slots]):
        body = Body.of(
            isa.mov(hidden, 0),
            isa.alu("xor", hidden, 0),
            isa.alu("lsh", hidden, 32),
            isa.mov(register, hidden),
            isa.mov32(hidden, 0),
            isa.alu("xor", hidden, 0, width=32),
            *((isa.make(_MOV32_REG, hidden, hidden, imm=1),) if extends else ()),
            isa.alu("or", register, hidden),
        )
        places = ((0, high_left), (1, high_right), (_LOW, low_left), (5, low_right))
        imms = {at: values[rows] for at, values in places}
        out[rows] = patches.replace(view.node[slots[rows]], body, imms)
    return out
