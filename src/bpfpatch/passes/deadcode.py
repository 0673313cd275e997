"""Removing what a column says cannot be reached, in the kernel's own way."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa
from bpfpatch.facts import SEEN
from bpfpatch.patch import Body, PatchList
from bpfpatch.patch.body import To
from bpfpatch.program.types import LOST

from .sites import opaque_slots

_GOTO_TARGET = Body(isa.ja(0), labels={0: To.TARGET})
_GOTO_NEXT = Body(isa.ja(0), labels={0: To.END})


def remove_unseen(patches: PatchList) -> None:
    """Make branches with one way left unconditional, and delete what is not seen.

    A branch that a relocation or the like belongs to is not changed but
    replaced, and its rows go.

    Raises:
        OptionError: there is no column ``seen``.

    Source: linux v6.18, kernel/bpf/verifier.c, opt_hard_wire_dead_code_branches() and
    opt_remove_dead_code().
    """
    seen = patches.aux(SEEN)
    view = patches.view()
    is_seen = np.append(seen[view.node], False)
    second = np.flatnonzero(view.node < 0)
    is_seen[second] = is_seen[second - 1]
    is_branch = isa.is_cond_jump(view.insns)[view.ref_slot] & (view.ref_target != LOST)
    slot, target = view.ref_slot[is_branch], view.ref_target[is_branch]
    slot, target = slot[is_seen[slot]], target[is_seen[slot]]
    always = ~is_seen[slot + 1]
    never = ~always & ~is_seen[target]
    opaque = opaque_slots(patches, view)
    gone = ~is_seen[:-1]
    changed = slot[always & ~opaque[slot]]
    patches.modify(view.node[changed], code=isa.JA, dst=0, src=0, imm=0)
    patches.replace(view.node[slot[never & ~opaque[slot]]], _GOTO_NEXT)
    for body, which in ((_GOTO_TARGET, always), (_GOTO_NEXT, never)):
        stuck = slot[which & opaque[slot]]
        patches.insert_before(view.node[stuck], body)
        gone[stuck] = True
    patches.delete(view.node[gone & (view.node >= 0)])
