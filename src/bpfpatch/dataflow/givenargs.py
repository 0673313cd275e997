"""Which arguments calls are given that say nothing of how many they take.

`bpf_trace_printk` takes as many as its format asks for, and a kernel function as many as its
prototype has. Those may be read that any path sets, where two calls share their end; those alone
may be saved that every path sets: to save another one would read a register that holds nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

from .backward import Masks
from .blocks import Blocks
from .forward import Calls, set_before, unset_before

_ARGS: Final = np.uint16(isa.ARGS)
_R1: Final = np.uint16(1 << isa.R1)
_CALLBACK_ARGS: Final = {
    number: len(proto.callback.args) for number, proto in HELPER_PROTOS.items() if proto.callback
}
_OTHER_CALLBACK: Final = 2
"""Of kernel functions: bpf_rbtree_add() gives two, an exception's callback gets one."""


def given_args(
    view: CodeView, blocks: Blocks, writes: Masks, wanted: Masks, takes: Masks | None = None
) -> Masks:
    """Find what is set before each instruction, where each subprog has what its callers set.

    Args:
        view: the code.
        blocks: its blocks.
        writes: (n,) registers that each instruction defines or destroys.
        wanted: (n,) registers that are read later, whatever calls are given.
        takes: (m,) arguments that each subprog may have at most: those of its prototype, where
            that is known. The verifier gives a global function no others.

    Returns:
        (n,) masks as of `set_before`.
    """
    callers, callees, given = _entries(view)
    most = np.full(given.size, _ARGS) if takes is None else takes & _ARGS
    least = wanted[view.starts] & _ARGS
    given = (given & most) | least
    return set_before(view, blocks, writes, given, Calls(callers, callees, least))


def may_be_given(
    view: CodeView, blocks: Blocks, writes: Masks, wanted: Masks, takes: Masks | None = None
) -> Masks:
    """Find what some path to each instruction has set; arguments as of `given_args`.

    Returns:
        (n,) masks of R1 to R5. In code that nothing leads to, none.
    """
    callers, callees, given = _entries(view)
    called = np.zeros(given.size, bool)
    called[callees] = True
    # From outside, a program is given its context, and a callback what its helper gives.
    outside = np.where(called & (given == _ARGS), 0, given) | _R1
    most = np.full(given.size, _ARGS) if takes is None else takes & _ARGS
    wanted_first = wanted[view.starts] & _ARGS
    never = _ARGS & ~(most | wanted_first)
    unset = _ARGS & ~(outside | wanted_first)
    found = unset_before(view, blocks, writes, unset, Calls(callers, callees, never))
    return _ARGS & ~found


def _entries(view: CodeView) -> tuple[Slots, Slots, Masks]:
    """(calls, the subprog that each calls, what each subprog is given at most)."""
    live = view.ref_is_entry & (view.ref_target != LOST)
    slots, goals = view.ref_slot[live], view.subprog_of(view.ref_target[live])
    is_call = isa.alone(isa.is_call, view.insns[slots])
    given = np.full(len(view.starts), _R1, np.uint16)
    given[goals[is_call]] = _ARGS
    for slot, goal in zip(slots[~is_call].tolist(), goals[~is_call].tolist(), strict=True):
        given[goal] = _mask(_n_callback_args(view, slot))
    return slots[is_call].astype(np.int32), goals[is_call].astype(np.int32), given


def _n_callback_args(view: CodeView, slot: int) -> int:
    """How many arguments the helper gives that gets the function's address."""
    later = view.insns[slot:]
    calls: Mask = isa.is_helper_call(later) & np.isin(later["imm"], list(_CALLBACK_ARGS))
    at = np.flatnonzero(calls)
    return _CALLBACK_ARGS[int(later["imm"][at[0]])] if at.size else _OTHER_CALLBACK


def _mask(count: int) -> np.uint16:
    return np.uint16(((1 << count) - 1) << 1)
