"""nops: take out instructions that do nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import Slots

from .base import Pass, register


@register
@dataclass(frozen=True)
class Nops(Pass):
    """Remove jumps to the next instruction: `goto +0`, `gotol +0`, `may_goto +0`.

    A jump over nothing but such jumps is one, too. Conditional jumps to the
    next instruction stay: they read a register, and the verifier learns from
    that.

    Source: linux v6.18, kernel/bpf/verifier.c, opt_remove_nops().
    """

    name = "nops"

    def run(self, patches: PatchList) -> None:
        """Delete them all."""
        view = patches.view()
        patches.delete(view.node[nop_slots(view)])


def nop_slots(view: CodeView) -> Slots:
    """(k,) slots of the jumps that do nothing, ascending."""
    is_jump = ~view.ref_is_entry
    slot, target = view.ref_slot[is_jump], view.ref_target[is_jump]
    plain = isa.is_uncond_jump(view.insns) | isa.is_may_goto(view.insns)
    # One that leaves its subprog is a mistake, and the subprog's end: not ours to hide.
    ahead = plain[slot] & (target > slot) & (view.subprog_of(slot) == view.subprog_of(target))
    slot, target = slot[ahead], target[ahead]
    # Only a jump over other candidates, and nothing else, can be one.
    others = np.ones(len(view) + 1, np.int32)
    others[slot] = 0
    others_before = np.cumsum(others) - others
    near = others_before[target] == others_before[slot + 1]
    return _settle(slot[near], target[near], len(view))


def _settle(slot: Slots, target: Slots, n_slots: int) -> Slots:
    """Of forward jumps, those between which and their target all goes: in the end nothing is."""
    next_kept = list(range(n_slots + 1))
    found: list[int] = []
    rows = zip(slot[::-1].tolist(), target[::-1].tolist(), strict=True)
    for at, goal in rows:  # backwards: what lies ahead is settled
        ahead = at + 1
        while next_kept[ahead] != ahead:
            next_kept[ahead] = next_kept[next_kept[ahead]]
            ahead = next_kept[ahead]
        if ahead >= goal:
            next_kept[at] = ahead
            found.append(at)
    return np.array(found[::-1], np.int32)
