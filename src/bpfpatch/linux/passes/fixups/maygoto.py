"""may_goto: count a loop's rounds down in the stack, and leave it at 0.

Two slots below the subprog's own frame are added where processors ask the
clock: the count and the time at which it began. Each time that the count runs
out, the kernel's function says, in its hidden register, for how many rounds to
go on. Elsewhere the count is all there is, and its slot.

Source: linux v6.18, kernel/bpf/verifier.c, do_misc_fixups(), compared with
what such a kernel makes of them on x86-64.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.functions import function
from bpfpatch.isa import R10, Reg
from bpfpatch.linux.versions import Topic, value
from bpfpatch.passes.search import Opcodes
from bpfpatch.passes.target import Target
from bpfpatch.patch import Body, To

from .depths import set_stack_depths, stack_depths
from .job import Job, body

MAX_LOOPS: Final = 8 * 1024 * 1024
MAX_TIMED_LOOPS: Final = 0xFFFF

_MAY_GOTO: Final = Opcodes(lambda opcode: opcode.name == "may_goto")
_SLOT: Final = 8


def count_may_gotos(job: Job) -> None:
    """Expand every may_goto, each with its subprog's count.

    Raises:
        OptionError: no table of stack depths.
    """
    sites = job.code.find(_MAY_GOTO)
    if not sites.size:
        return
    is_timed, hidden = _is_timed(job.setting.target), job.setting.target.hidden
    depths = stack_depths(job.patches)
    row_of_site = job.view.subprog[job.view.subprog_of(sites)]
    depths[np.unique(row_of_site)] += 2 * _SLOT if is_timed else _SLOT
    for depth in np.unique(depths[row_of_site]).tolist():
        new = (_timed if is_timed else _counted)(-depth, hidden)
        job.replace(sites[depths[row_of_site] == depth], new)
    set_stack_depths(job.patches, depths)
    for row in np.unique(row_of_site).tolist():
        job.at_entry(row, _prologue(int(depths[row]), is_timed=is_timed))


def _is_timed(target: Target) -> bool:
    return bool(value(Topic.TIMED_MAY_GOTO, target.kernel, target.arch.name))


def _timed(count_off: int, hidden: Reg) -> Body:
    # The function gets the count's place in the hidden register, answers there, and leaves all
    # others alone.
    insns = isa.concat(
        [
            isa.load("u64", hidden, R10, count_off),
            isa.jump("==", hidden, 0, 0),
            isa.alu("-=", hidden, 1),
            isa.jump("!=", hidden, 0, 2),
            isa.mov(hidden, count_off),
            isa.call_helper(function("arch_bpf_timed_may_goto")),
            isa.store("u64", R10, count_off, hidden),
        ]
    )
    return Body(insns, labels={1: To.TARGET})


def _counted(count_off: int, hidden: Reg) -> Body:
    insns = isa.concat(
        [
            isa.load("u64", hidden, R10, count_off),
            isa.jump("==", hidden, 0, 0),
            isa.alu("-=", hidden, 1),
            isa.store("u64", R10, count_off, hidden),
        ]
    )
    return Body(insns, labels={1: To.TARGET})


def _prologue(depth: int, *, is_timed: bool) -> Body:
    if not is_timed:
        return body(isa.store("u64", R10, -depth, MAX_LOOPS))
    return body(
        isa.store("u64", R10, -depth, MAX_TIMED_LOOPS),
        isa.store("u64", R10, -depth + _SLOT, 0),
    )
