"""nops: take out instructions that do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import Mask, Slots, gather

from .base import Pass, register

_MAY_GOTO: Final = next(one.code for one in isa.OPCODES if one.name == "may_goto")


@register
@dataclass(frozen=True)
class Nops(Pass):
    """Remove jumps to the next instruction: `goto +0`, `gotol +0`, `may_goto +0`.

    A jump over nothing but such jumps is one, too. Conditional jumps to the
    next instruction stay: they read a register, and the verifier learns from
    that.

    With ``once=true`` it goes through the code once, as the kernel does: a
    `goto` that only becomes a nop by what goes behind it stays, unless it was
    a `may_goto +0` that went; and every `gotol` stays.

    Attributes:
        once: whether to take out what the kernel does, and no more.

    Source: linux v6.18, kernel/bpf/verifier.c, opt_remove_nops().
    """

    name = "nops"
    knows_landing_pads = True
    once: bool = False

    def run(self, patches: PatchList) -> None:
        """Delete them all."""
        view = patches.view()
        patches.delete(gather(view.node, nop_slots(view, once=self.once)))


def nop_slots(view: CodeView, *, once: bool = False) -> Slots:
    """(k,) slots of the jumps that do nothing, ascending.

    Args:
        view: the code.
        once: whether to find what the kernel finds in its one pass, see `Nops`.
    """
    slot, target, is_may = _candidates(view, once=once)
    is_near = target == slot + 1
    if is_near.all():
        return slot
    # Only a jump over other candidates, and nothing else, can be one.
    far = np.flatnonzero(~is_near)
    n_between = np.searchsorted(slot, target[far]) - far - 1
    is_near[far] = n_between == target[far] - slot[far] - 1
    if once:
        slot, target, is_may = slot[is_near], target[is_near], is_may[is_near]
        found: Slots = slot[_sweep(slot, target, is_may)]
    else:
        found = slot[_settle(slot, target, is_near)]
    return found


def _candidates(view: CodeView, *, once: bool) -> tuple[Slots, Slots, Mask]:
    """Unconditional jumps ahead, in order: their slots, their targets, which are `may_goto`."""
    is_ahead = ~view.ref_is_entry & (view.ref_target > view.ref_slot)
    slot, target = view.ref_slot[is_ahead], view.ref_target[is_ahead]
    codes = view.insns["code"][slot]
    is_may = codes == _MAY_GOTO
    fits = (codes == isa.JA) | is_may
    if not once:
        fits |= codes == isa.GOTOL
    # One that leaves its subprog is a mistake, and the subprog's end: not ours to hide.
    if len(view.starts) > 1:
        fits &= view.subprog_of(slot) == view.subprog_of(target)
    return slot[fits], target[fits], is_may[fits]


def _sweep(slot: Slots, target: Slots, is_may: Mask) -> Mask:
    """What one pass from front to back finds that looks back behind each `may_goto +0`.

    In plain Python, on code that shrinks meanwhile::

        while at < len(code):
            if not is_nop(code[at]):
                at += 1
                continue
            was_may = is_may_goto(code.pop(at))
            if was_may and at > 0:
                at -= 1

    What it comes to for the first time is a nop if it leads to the next slot: all that is
    behind is still there. The looks back are for jumps that stayed, and end at what is no jump.

    Args:
        slot: (k,) candidates over nothing but candidates, ascending.
        target: (k,) where they go.
        is_may: (k,) which are `may_goto`.
    """
    is_gone: Mask = target == slot + 1
    run = np.cumsum(np.append(False, slot[1:] != slot[:-1] + 1), dtype=np.int32)
    has_stayed = np.zeros(run.size, bool)
    has_stayed[run[~is_gone]] = True
    rows = np.flatnonzero((~is_gone | is_may) & has_stayed[run])
    stayed: list[int] = []  # the latest last
    for row, was_gone in zip(rows.tolist(), is_gone[rows].tolist(), strict=True):
        if not was_gone:
            stayed.append(row)
            continue
        was_may = True
        while was_may and stayed and run[stayed[-1]] == run[row]:
            if target[stayed[-1]] > slot[row] + 1:
                break
            back = stayed.pop()
            is_gone[back], was_may = True, is_may[back]
    return is_gone


def _settle(slot: Slots, target: Slots, is_near: Mask) -> Mask:
    """Those between which and their target all goes: in the end nothing is.

    Args:
        slot: (k,) candidates, ascending.
        target: (k,) where they go.
        is_near: (k,) those over nothing but candidates.
    """
    is_gone = is_near.copy()
    far = np.flatnonzero(target > slot + 1)[::-1]  # backwards: what lies ahead is settled
    rows = zip(far.tolist(), slot[far].tolist(), target[far].tolist(), strict=True)
    next_kept = int(target[far].max())
    for row, at, goal in rows:
        if is_near[row] and next_kept >= goal:
            continue
        is_gone[row] = False
        next_kept = at
    return is_gone
