"""Where a sleepable program must not sleep: what it locks, and up to where.

Source: linux v6.18, kernel/bpf/verifier.c, check_helper_call():
storage_get_func_atomic is set by any way there that holds such a lock.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.passes.sites import indirect_targets
from bpfpatch.program.types import LOST, Mask

from .job import Job
from .symbols import kfunc_calls

_ENTER: Final = (
    "bpf_rcu_read_lock",
    "bpf_preempt_disable",
    "bpf_local_irq_save",
    "bpf_res_spin_lock",
    "bpf_res_spin_lock_irqsave",
)
_LEAVE: Final = (
    "bpf_rcu_read_unlock",
    "bpf_preempt_enable",
    "bpf_local_irq_restore",
    "bpf_res_spin_unlock",
    "bpf_res_spin_unlock_irqrestore",
)
_DEEPEST: Final = 64
"""More than the verifier lets a program hold at once."""


def atomic_parts(job: Job) -> Mask:
    """(n,) instructions that some way reaches with a lock held.

    A subprog starts as its callers stand, and leaves them as they were.
    """
    steps = _steps(job)
    out = np.zeros(len(job.view), bool)
    if not steps:
        return out
    held = _held(job, steps)
    blocks, entries = held
    for block, depth in entries.items():
        at = depth
        for slot in range(int(blocks.start[block]), int(blocks.last[block]) + 1):
            out[slot] = at > 0
            at = max(at + steps.get(slot, 0), 0)
    return out


def _steps(job: Job) -> dict[int, int]:
    """By slot of a call, by how much it changes what is held."""
    out: dict[int, int] = {}
    for sites, name in kfunc_calls(job):
        step = (name in _ENTER) - (name in _LEAVE)
        if step:
            out |= dict.fromkeys(sites.tolist(), step)
    return out


def _held(job: Job, steps: dict[int, int]) -> tuple[Blocks, dict[int, int]]:
    """The blocks, and by block the most that is held where it begins."""
    view = job.view
    blocks = Blocks.of(view, indirect_targets(job.patches.program, view))
    is_live = view.ref_is_entry & (view.ref_target != LOST)
    first_block = np.searchsorted(blocks.start, view.ref_target[is_live])
    callee = dict(zip(view.ref_slot[is_live].tolist(), first_block.tolist(), strict=True))
    entries = {0: 0}
    todo = [0]
    while todo:
        block = todo.pop()
        depth = entries[block]
        goals: list[tuple[int, int]] = []
        for slot in range(int(blocks.start[block]), int(blocks.last[block]) + 1):
            if slot in callee:
                goals.append((callee[slot], depth))
            depth = min(max(depth + steps.get(slot, 0), 0), _DEEPEST)
        ahead = [block + 1] if blocks.falls[block] else []
        if blocks.jump[block] != LOST:
            ahead.append(int(blocks.jump[block]))
        if blocks.is_indirect[block]:
            ahead += blocks.indirect.get(int(blocks.subprog[block]), [])
        for goal, at in goals + [(one, depth) for one in ahead]:
            if entries.get(goal, -1) < at:
                entries[goal] = at
                todo.append(goal)
    return blocks, entries
