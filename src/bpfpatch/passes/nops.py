"""nops: take out instructions that do nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import Mask, Slots

from .base import Pass, register


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
    once: bool = False

    def run(self, patches: PatchList) -> None:
        """Delete them all."""
        view = patches.view()
        patches.delete(view.node[nop_slots(view, once=self.once)])


def nop_slots(view: CodeView, *, once: bool = False) -> Slots:
    """(k,) slots of the jumps that do nothing, ascending.

    Args:
        view: the code.
        once: whether to find what the kernel finds in its one pass, see `Nops`.
    """
    is_jump = ~view.ref_is_entry
    slot, target = view.ref_slot[is_jump], view.ref_target[is_jump]
    is_may = isa.is_may_goto(view.insns)
    plain = isa.is_uncond_jump(view.insns) | is_may
    if once:
        plain &= view.insns["code"] != isa.GOTOL
    # One that leaves its subprog is a mistake, and the subprog's end: not ours to hide.
    ahead = plain[slot] & (target > slot) & (view.subprog_of(slot) == view.subprog_of(target))
    slot, target = slot[ahead], target[ahead]
    # Only a jump over other candidates, and nothing else, can be one.
    others = np.ones(len(view) + 1, np.int32)
    others[slot] = 0
    others_before = np.cumsum(others) - others
    near = others_before[target] == others_before[slot + 1]
    if once:
        return _sweep(slot[near], target[near], is_may[slot[near]], len(view))
    return _settle(slot[near], target[near], len(view))


def _sweep(slot: Slots, target: Slots, is_may: Mask, n_slots: int) -> Slots:
    """What one pass from front to back finds that looks back behind each `may_goto +0`.

    In plain Python, on code that shrinks meanwhile::

        while at < len(code):
            if not is_nop(code[at]):
                at += 1
                continue
            was_may = is_may_goto(code.pop(at))
            if was_may and at > 0:
                at -= 1
    """
    next_kept = list(range(n_slots + 1))
    rows = zip(slot.tolist(), target.tolist(), is_may.tolist(), strict=True)
    passed: list[tuple[int, int, bool]] = []  # those that stayed so far, the latest last
    found: list[int] = []
    for row in rows:
        if _ahead(next_kept, row[0]) < row[1]:
            passed.append(row)
            continue
        next_kept[row[0]] = row[0] + 1
        found.append(row[0])
        was_may, ahead = row[2], _ahead(next_kept, row[0])
        # The very one in front may now lead to the next instruction.
        while was_may and passed and passed[-1][1] <= ahead == _ahead(next_kept, passed[-1][0]):
            at, _, was_may = passed.pop()
            next_kept[at] = at + 1
            found.append(at)
    return np.array(sorted(found), np.int32)


def _ahead(next_kept: list[int], at: int) -> int:
    """The first slot behind one that is still there."""
    ahead = at + 1
    while next_kept[ahead] != ahead:
        next_kept[ahead] = next_kept[next_kept[ahead]]
        ahead = next_kept[ahead]
    return ahead


def _settle(slot: Slots, target: Slots, n_slots: int) -> Slots:
    """Of forward jumps, those between which and their target all goes: in the end nothing is."""
    next_kept = list(range(n_slots + 1))
    found: list[int] = []
    rows = zip(slot[::-1].tolist(), target[::-1].tolist(), strict=True)
    for at, goal in rows:  # backwards: what lies ahead is settled
        ahead = _ahead(next_kept, at)
        if ahead >= goal:
            next_kept[at] = ahead
            found.append(at)
    return np.array(found[::-1], np.int32)
