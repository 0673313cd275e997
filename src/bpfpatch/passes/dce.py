"""dce: take out code that cannot run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.analysis import Blocks, Constants, reachable
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program import JUMP_TABLE, LOST, Anchor, Program
from bpfpatch.program.types import Mask, Slots

from .base import Pass, register


@register
@dataclass(frozen=True)
class Dce(Pass):
    """Remove unreachable code, branches on constants, and functions that nothing calls any more.

    A branch on a constant that the code in front of it shows becomes a `goto`,
    or goes; what then cannot be reached goes with its line records,
    relocations, function records and symbols. A function that nothing called
    to begin with has a reason of its own and stays. What the pass leaves, it
    leaves for good: run on its own result, it changes nothing.

    Attributes:
        branches: whether to decide branches on constants.
        functions: whether to remove functions that nothing calls any more.

    Source: linux v6.1, kernel/bpf/verifier.c, opt_hard_wire_dead_code_branches()
    and opt_remove_dead_code(); the decisions here are our own.
    """

    name = "dce"
    branches: bool = True
    functions: bool = True

    def run(self, patches: PatchList) -> None:
        """Decide and delete, all at once: what is left has nothing more to decide."""
        view = patches.view()
        blocks = Blocks.of(view, _indirect_targets(patches.program, view))
        constants = Constants(view, blocks, _opaque(patches, view)) if self.branches else None
        reach = reachable(view, blocks, self._roots(patches.program, view), constants)
        patches.modify(view.node[reach.taken], code=isa.JA, dst=0, src=0, imm=0)
        gone = np.repeat(~reach.block, np.diff(blocks.start, append=len(view)))
        gone[reach.never] = True
        patches.delete(view.node[gone & (view.node >= 0)])

    def _roots(self, program: Program, view: CodeView) -> Slots:
        """Indices into ``view.starts`` of the functions that stay in any case."""
        if not self.functions:
            return np.arange(len(view.starts), dtype=np.int32)
        return np.flatnonzero(_stays(program)[view.subprog]).astype(np.int32)


def _stays(program: Program) -> Mask:
    """(m,) functions that something outside of the code enters, or must enter if anything does.

    The latter are those that no other one leads to: nothing calls them, or
    only they themselves and each other do.
    """
    subprogs, refs = program.subprogs, program.refs
    caller = subprogs.of(refs.slot[refs.is_entry]).tolist()
    callee = subprogs.of(refs.target[refs.is_entry]).tolist()
    calls: dict[int, set[int]] = {}
    for one, other in zip(caller, callee, strict=True):
        calls.setdefault(one, set()).add(other)
    stays = subprogs.is_root | ~np.isin(np.arange(len(subprogs)), callee)
    is_led_to = stays.copy()
    todo = np.flatnonzero(stays).tolist()
    while todo:
        for other in calls.get(todo.pop(), ()):
            if not is_led_to[other]:
                is_led_to[other] = True
                todo.append(other)
    return stays | ~is_led_to


def _opaque(patches: PatchList, view: CodeView) -> Mask:
    """(n,) slots whose immediate a loader fills in, so that nobody knows it yet."""
    program = patches.program
    by_node = np.zeros(len(program) + 1, bool)  # the last one answers for inserted nodes
    by_node[program.external] = True
    for table in program.tables.values():
        if table.anchor is Anchor.OWN:
            by_node[table.insn] = True
    opaque = by_node[np.where(view.node < view.n_original, view.node, -1)]
    return opaque | np.isin(view.node, patches.attached())


def _indirect_targets(program: Program, view: CodeView) -> Slots:
    """Slots that jump tables name: where a gotox may go."""
    table = program.tables.get(JUMP_TABLE)
    if table is None:
        return np.zeros(0, np.int32)
    landing: Slots = view.land[table.insn]
    found: Slots = landing[landing != LOST]
    return found
