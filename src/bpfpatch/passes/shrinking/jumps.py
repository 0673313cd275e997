"""jumps: take out detours, and code that stands in several places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Body, PatchList
from bpfpatch.program.types import LOST

from ..base import Pass, register
from ..nops import nop_slots
from ..setting import Setting
from .code import NEAR, Scope, ShrinkCode, run_rounds, scope_for
from .tails import merge_tails

_JMP, _JMP32, _JSET = 0x05, 0x06, 0x40
_GOTOL = 0x06
_CLASS, _OPERATION = 0x07, 0xF0


@register
@dataclass(frozen=True)
class Jumps(Pass):
    """Remove detours: jumps to jumps, jumps over jumps, jumps to where control goes anyway.

    A jump to a `goto` goes to where that goes. A conditional jump over a `goto` becomes its
    opposite, with the other's target. A jump to the next instruction goes, and a conditional one
    that goes where the `goto` after it does. What cannot be reached then goes, too. Where two
    paths end in the same instructions in front of one place, one of them jumps to the other's.

    With ``safe=true``, which is the default, conditional jumps stay of which both ways lead to the
    same place, since the verifier learns from them; and only arithmetic is merged, since the
    verifier takes one instruction for one kind of memory only.

    Attributes:
        safe: whether to do only what takes nothing from any kernel's verifier.
        tails: whether equal ends are merged.
    """

    name = "jumps"
    knows_landing_pads = True
    safe: bool = True
    tails: bool = True

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Go round until nothing is found, or for a bounded number of rounds."""
        scope = scope_for(patches, setting, is_safe=self.safe)
        straighten(patches, scope)
        if self.tails:
            merge_tails(patches, scope)
            straighten(patches, scope)


def straighten(patches: PatchList, scope: Scope) -> int:
    """Take out detours; gives how many edits were made."""
    return run_rounds(patches, scope, _look)


def _look(code: ShrinkCode) -> int:
    n_edits = _thread(code)
    n_edits += _turn_over(ShrinkCode(code.patches, code.scope))
    return n_edits + _drop(ShrinkCode(code.patches, code.scope))


class _JumpTable:
    """The jumps of some code by slot."""

    def __init__(self, code: ShrinkCode) -> None:
        view = code.view
        is_jump = ~view.ref_is_entry & (view.ref_target != LOST)
        slots, targets = view.ref_slot[is_jump], view.ref_target[is_jump]
        # A jump out of its function is a mistake, and not ours to hide.
        stays = view.subprog_of(slots) == view.subprog_of(targets)
        slots, targets = slots[stays], targets[stays]
        self.target: dict[int, int] = dict(zip(slots.tolist(), targets.tolist(), strict=True))
        always = isa.alone(isa.is_uncond_jump, view.insns[slots])
        self.always = set(slots[always].tolist())
        self.codes: dict[int, int] = dict(
            zip(slots.tolist(), view.insns["code"][slots].tolist(), strict=True)
        )
        self.reached = set(targets.tolist())

    def end(self, slot: int) -> int:
        """Where a jump to a slot arrives in the end; the slot itself if it goes in a circle."""
        seen = {slot}
        at = slot
        while at in self.always:
            at = self.target[at]
            if at in seen:
                return slot
            seen.add(at)
        return at


def _thread(code: ShrinkCode) -> int:
    """Let jumps to jumps go where these go."""
    jumps, may, node = _JumpTable(code), code.may_change, code.view.node
    edits: list[tuple[int, Body]] = []
    ends: dict[int, int] = {}
    for slot, target in jumps.target.items():
        if target not in jumps.always or not may[slot] or code.opaque[slot]:
            continue
        if target not in ends:
            ends[target] = jumps.end(target)
        is_near = jumps.codes[slot] == _GOTOL or abs(ends[target] - slot) < NEAR
        if is_near and ends[target] not in (target, slot):
            insn = code.view.insns[slot : slot + 1]
            edits.append((int(node[slot]), Body(insn, labels={0: int(node[ends[target]])})))
    for site, body in edits:
        # Bodies refer to jumps that go themselves no more: their ends are no jumps.
        code.patches.replace(site, body)
    return len(edits)


def _turn_over(code: ShrinkCode) -> int:
    """Turn conditional jumps over a `goto` into their opposites, with its target."""
    jumps, may, view = _JumpTable(code), code.may_change, code.view
    n_edits = 0
    for slot, target in jumps.target.items():
        over = slot + 1
        if target != slot + 2 or over not in jumps.always or over in jumps.reached:
            continue
        operation = jumps.codes[slot] & _OPERATION
        opposite = isa.OPPOSITE_JUMPS.get(operation)
        is_compare = jumps.codes[slot] & _CLASS in (_JMP, _JMP32) and slot not in jumps.always
        if opposite is None or not is_compare or not may[slot] or not may[over]:
            continue
        goal = jumps.target[over]
        if (
            goal in (slot, over)
            or abs(goal - slot) >= NEAR
            or code.opaque[slot]
            or code.opaque[over]
        ):
            continue
        insn = view.insns[slot : slot + 1].copy()
        insn["code"] = (jumps.codes[slot] & ~_OPERATION) | opposite
        code.patches.replace(int(view.node[slot]), Body(insn, labels={0: int(view.node[goal])}))
        code.patches.delete(int(view.node[over]))
        n_edits += 2
    return n_edits


def _drop(code: ShrinkCode) -> int:
    """Delete jumps that change nothing, and what no path leads to any more."""
    view, may = code.view, code.may_change
    gone = np.zeros(len(view), bool)
    gone[nop_slots(view)] = True
    if not code.scope.is_safe:
        jumps = _JumpTable(code)
        for slot, target in jumps.target.items():
            after = slot + 1
            if slot in jumps.always or isa.is_may_goto(view.insns[slot : slot + 1])[0]:
                continue
            is_same = after in jumps.always and jumps.target[after] == target
            gone[slot] |= target == after or is_same
    gone &= may & ~code.opaque
    gone |= _unreached(code)
    sites = view.node[gone]
    code.patches.delete(sites)
    return int(sites.size)


def _unreached(code: ShrinkCode) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) instructions of functions that may be changed to which no path leads."""
    blocks, view = code.blocks, code.view
    seen = np.zeros(len(blocks), bool)
    todo = np.searchsorted(blocks.start, view.starts).tolist()
    seen[todo] = True
    if code.pads.size:
        pads = np.searchsorted(blocks.start, code.pads).tolist()
        seen[pads] = True
        todo += pads
    while todo:
        for goal in code.after(todo.pop()):
            if not seen[goal]:
                seen[goal] = True
                todo.append(goal)
    gone = np.repeat(~seen, np.diff(blocks.start, append=len(view)))
    out: np.ndarray[tuple[int], np.dtype[np.bool_]] = gone & code.may_change
    return out
