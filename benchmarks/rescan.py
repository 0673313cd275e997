"""Patch and rescan: one site after the other, each with a copy of the program and a look at all.

This is what is to be beaten, in NumPy, so that its constant is as good as ours:
the kernel does the same in C, with a third pass over its data about each
instruction.

Source: linux v6.18, kernel/bpf/core.c, bpf_patch_insn_single(), bpf_adj_branches(),
bpf_remove_insns().
"""

from __future__ import annotations

import time

import numpy as np

from bpfpatch import isa
from bpfpatch.program.types import Insns, Slots

_CLASS, _JMP, _JMP32 = 0x07, 0x05, 0x06
_CALL, _EXIT = 0x85, 0x95
_LOOK_EVERY = 32


def patch_and_rescan(
    insns: Insns, sites: Slots, body: Insns, budget: float = float("inf")
) -> Insns | None:
    """Put a body in the place of the instruction at each site, one site at a time.

    Args:
        insns: (n,) the program; its jumps have 16-bit distances.
        sites: (k,) ascending slots; a jump to one reaches the body's first instruction, or
            what follows where the body is empty.
        body: what goes there; it has no jumps.
        budget: seconds after which to give up.

    Returns:
        The program, or None where the budget was not enough.
    """
    delta = len(body) - 1
    end = time.perf_counter() + budget
    for done, site in enumerate(sites.tolist()):
        at = site + done * delta
        insns = np.concatenate([insns[:at], body, insns[at + 1 :]])
        if delta:
            _adjust(insns, at, delta)
        if done % _LOOK_EVERY == 0 and time.perf_counter() > end:
            return None
    return insns


def _adjust(insns: Insns, at: int, delta: int) -> None:
    """Find every jump, and mend those that cross the site."""
    code = insns["code"]
    kind = code & _CLASS
    slot = np.flatnonzero(((kind == _JMP) | (kind == _JMP32)) & (code != _CALL) & (code != _EXIT))
    # Where the jump was before, and where its distance, which is still the old one, led.
    was = np.where(slot > at + delta, slot - delta, slot)
    goal = was + 1 + insns["off"][slot]
    insns["off"][slot[(was < at) & (goal > at)]] += delta
    insns["off"][slot[(was > at) & (goal <= at)]] -= delta


def moves(n_insns: int) -> Insns:
    """A body without jumps."""
    out = np.zeros(n_insns, isa.INSN)
    out["code"] = 0xB7
    return out
