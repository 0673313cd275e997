"""Removing what a column says cannot be reached, in the kernel's own way."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts import SEEN
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.patch.body import To
from bpfpatch.program.types import LOST, Mask

from .sites import opaque_slots

_GOTO_TARGET: Final = Body(isa.ja(0), labels={0: To.TARGET})
_GOTO_NEXT: Final = Body(isa.ja(0), labels={0: To.END})


def remove_unseen(patches: PatchList) -> None:
    """Make branches with one way left unconditional, and delete what is not seen.

    A branch that a relocation or the like belongs to is not changed but
    replaced, and its rows go. What refers to a function that goes is in `_redirect`.

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
    _redirect(patches, view, is_seen[:-1], opaque, gone)
    patches.delete(view.node[gone & (view.node >= 0)])


def _redirect(patches: PatchList, view: CodeView, is_seen: Mask, opaque: Mask, gone: Mask) -> None:
    """Let what stays refer to no function that goes: to the next one that stays, as the kernel.

    That is the address of a callback whose uses are all dead, and a call that another pass put
    in: of the callback of a loop of no rounds. Neither comes to anything. Where no function
    follows, the address becomes 0, and the call ``r0 = 0``. The kernel has a distance after the
    code there if no function but the first is left, and refuses the program (EFAULT) if one is;
    also, mostly, if what goes right in front of the function goes with it.

    A call of the program itself whose callee is not seen is none of these: the column
    contradicts itself, and linearizing says so.

    Args:
        patches: the list.
        view: its code.
        is_seen: (n,) what stays.
        opaque: (n,) instructions that something belongs to.
        gone: (n,) what is to be deleted; what is replaced here by other means is added.

    Source: linux v6.18, kernel/bpf/core.c, bpf_adj_delta_to_imm(), and kernel/bpf/verifier.c,
    jit_subprogs(); seen on v6.18.
    """
    heads = view.starts[is_seen[view.starts]]
    is_lost = view.ref_is_entry & (view.ref_target != LOST) & is_seen[view.ref_slot]
    is_lost &= ~is_seen[view.ref_target]
    for slot, target in zip(view.ref_slot[is_lost], view.ref_target[is_lost], strict=True):
        is_call = bool(isa.is_call(view.insns[slot : slot + 1])[0])
        if is_call and view.node[slot] < view.n_original:
            continue
        following = heads[heads > target]
        head = int(view.node[following[0]]) if following.size else None
        body = _in_place_of(head, None if is_call else int(view.insns["regs"][slot] & 0xF))
        if opaque[slot]:
            patches.insert_before(int(view.node[slot]), body)
            gone[slot] = True
        else:
            patches.replace(int(view.node[slot]), body)


def _in_place_of(head: int | None, dst: int | None) -> Body:
    """A call (``dst`` None) or address of the function that a node begins, if there is one."""
    if head is None:
        return Body(isa.mov(isa.R0, 0) if dst is None else isa.ld_imm64(dst, 0))
    return Body(isa.call_subprog(0) if dst is None else isa.ld_func(dst, 0), labels={0: head})
