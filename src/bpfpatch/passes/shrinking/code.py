"""What all shrinking passes look at: the code, where it may be changed, what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness
from bpfpatch.dataflow.stackreach import FrameWalks
from bpfpatch.dataflow.stackwalk import WalkStep
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import LOST, Mask

from ..setting import Setting
from ..sites import (
    global_functions,
    indirect_targets,
    landing_pads,
    opaque_slots,
    unwound,
)

NEAR: Final = 1 << 14
"""Slots that a 16-bit jump is made to go at most: half of what it can, as in LLVM, since the kernel
makes what is between longer when it writes calls out."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a shrinking pass may change.

    Attributes:
        skipped: subprogs, by number in the original program, that stay as they are.
        is_safe: whether to do only what is known not to take from the verifier what it knows.
        n_rounds: how often a pass looks again after it has found something.
        replaceable: subprogs, by number in the original program, that another program may take
            the place of (freplace): their own code says nothing of what a call does.
    """

    skipped: frozenset[int] = frozenset()
    is_safe: bool = False
    n_rounds: int = 8
    replaceable: frozenset[int] = frozenset()

    def without(self, subprogs: Iterable[int]) -> Scope:
        """The same, with further subprogs left as they are."""
        return replace(self, skipped=self.skipped | frozenset(subprogs))


def scope_for(patches: PatchList, setting: Setting, *, is_safe: bool) -> Scope:
    """All of a list's code.

    Args:
        patches: the list.
        setting: what is known beside it; without an object, functions that a loader knows by
            their types count as global.
        is_safe: see `Scope`.
    """
    program = patches.program
    found = np.zeros(len(program.subprogs), bool)
    if setting.edit is not None:
        found = global_functions(program, setting.edit.obj)
    elif "func_info" in program.tables:
        found[:] = True
    return Scope(is_safe=is_safe, replaceable=frozenset(np.flatnonzero(found).tolist()))


class ShrinkCode:
    """The code of a list as it is now, and what is known of it; each analysis is run once.

    Args:
        patches: the list; it must not be edited while this is in use.
        scope: what may be changed.

    Attributes:
        view: the code.
        blocks: its blocks.
        pads: slots to which control comes without a jump.
    """

    def __init__(self, patches: PatchList, scope: Scope) -> None:
        self.patches = patches
        self.scope = scope
        self.view: CodeView = patches.view()
        self._touches: dict[int, dict[int, WalkStep]] = {}
        self.pads = landing_pads(patches.program, self.view)
        # A pad starts a block as what follows a call that does not return does.
        targets = indirect_targets(patches.program, self.view)
        self.blocks = Blocks.of(self.view, targets, self.pads - 1)

    @cached_property
    def subprogs(self) -> list[int]:
        """Subprogs of the view that may be changed.

        What is unwound to a landing pad comes there with registers that no analysis knows: a
        function that has one stays as it is; so does one that passes or takes arguments by R11.
        """
        is_open = ~np.isin(self.view.subprog, list(self.scope.skipped))
        is_open &= ~unwound(self.patches.program, self.view)
        insns = self.view.insns
        odd = np.flatnonzero((isa.reads(insns) | isa.writes(insns)) >> isa.AX).astype(np.int32)
        is_open[self.view.subprog_of(odd)] = False
        found: list[int] = np.flatnonzero(is_open).tolist()
        return found

    @cached_property
    def may_change(self) -> Mask:
        """(n,) first slots of instructions in subprogs that may be changed."""
        is_open = np.zeros(len(self.view.starts) + 1, bool)
        is_open[self.subprogs] = True
        owner = self.view.subprog_of(np.arange(len(self.view), dtype=np.int32))
        out: Mask = is_open[owner] & (self.view.node >= 0)
        return out

    @cached_property
    def opaque(self) -> Mask:
        """(n,) slots that a loader fills in or checks."""
        return opaque_slots(self.patches, self.view)

    @cached_property
    def liveness(self) -> Liveness:
        """Which registers are read later; arguments of calls of subprogs count as read.

        The verifier checks all arguments of a global function, whether that reads them or not.
        """
        first = Liveness.of(self.view, self.blocks)
        if not isa.is_subprog_call(self.view.insns).any():
            return first
        return Liveness.of(self.view, self.blocks, args=initialized(self.view, self.blocks, first))

    @cached_property
    def walks(self) -> FrameWalks:
        """What subprogs do with their frames."""
        replaceable = np.isin(self.view.subprog, list(self.scope.replaceable))
        return FrameWalks(self.view, self.blocks, replaceable)

    @cached_property
    def _goals(self) -> list[list[int]]:
        """By block the blocks that control goes to."""
        blocks = self.blocks
        out: list[list[int]] = []
        rows = zip(
            range(len(blocks)),
            blocks.falls.tolist(),
            blocks.jump.tolist(),
            blocks.subprog.tolist(),
            blocks.is_indirect.tolist(),
            strict=True,
        )
        for block, falls, jump, owner, goes in rows:
            goals = [block + 1] if falls and block + 1 < len(blocks) else []
            goals += [jump] if jump != LOST else []
            goals += blocks.indirect.get(owner, []) if goes else []
            out.append(goals)
        return out

    def after(self, block: int) -> list[int]:
        """The blocks to which control goes from one."""
        return self._goals[block]

    def block_of(self, slot: int) -> int:
        """The block that a slot is in."""
        return int(np.searchsorted(self.blocks.start, slot, "right")) - 1

    def touches(self, subprog: int) -> dict[int, WalkStep]:
        """By slot what the instructions of a subprog do with its frame."""
        found = self._touches.get(subprog)
        if found is None:
            steps = self.walks.steps(subprog)
            found = {step.slot: step for some in steps for step in some}
            self._touches[subprog] = found
        return found

    def slots_of(self, subprog: int) -> tuple[int, int]:
        """The slots of a subprog: the first, and the one after the last."""
        bounds = [*self.view.starts.tolist(), len(self.view)]
        return bounds[subprog], bounds[subprog + 1]


def run_rounds(patches: PatchList, scope: Scope, look: Callable[[ShrinkCode], int]) -> int:
    """Look again as long as something is found, at the subprogs where something was.

    Args:
        patches: the list.
        scope: what may be changed.
        look: edits the list, and says how many edits it made.

    Returns:
        How many edits were made in all.
    """
    total = 0
    for left in range(scope.n_rounds - 1, -1, -1):
        code = ShrinkCode(patches, scope)
        n_edits = look(code)
        total += n_edits
        if not n_edits or not left:
            break
        before, after = fingerprints(code.view), fingerprints(patches.view())
        scope = scope.without(one for one, mark in after.items() if before.get(one) == mark)
    return total


def fingerprints(view: CodeView) -> dict[int, bytes]:
    """By subprog (numbers of the original program) a mark that changes when its code does."""
    targets = np.where(view.ref_target == LOST, LOST, view.node[view.ref_target])
    bounds = [*view.starts.tolist(), len(view)]
    refs = np.searchsorted(view.ref_slot, bounds).tolist()
    out: dict[int, bytes] = {}
    for at, subprog in enumerate(view.subprog.tolist()):
        begin, end = bounds[at], bounds[at + 1]
        parts = view.insns[begin:end], view.node[begin:end], targets[refs[at] : refs[at + 1]]
        out[subprog] = blake2b(b"".join(part.tobytes() for part in parts)).digest()
    return out
