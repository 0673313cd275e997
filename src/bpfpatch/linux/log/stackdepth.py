"""Stack of each subprog before the kernel's rewriting, from the figures that it prints after."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.facts.columns import CALLBACK, NONE, SEEN
from bpfpatch.program import Program
from bpfpatch.program.types import Mask

_LOOP: Final = isa.HELPER_IDS["loop"]
_LOOP_BYTES: Final = 24
"""Three registers that an inlined bpf_loop saves; the stack is rounded up to 8 before.
Source: linux v6.18, kernel/bpf/verifier.c, optimize_bpf_loop()."""


def may_goto_bytes() -> int:
    """Bytes of stack for may_goto's counter: 16 where it counts time, too.

    Source: linux v6.18, bpf_jit_supports_timed_may_goto() of arch/x86/net/bpf_jit_comp.c and
    arch/arm64/net/bpf_jit_comp.c.
    """
    return 16 if platform.machine() in {"x86_64", "aarch64"} else 8


def depths_before(
    program: Program, starts: Sequence[int], depths: Sequence[int]
) -> NDArray[np.int32]:
    """(m,) bytes of stack of each subprog; 0 for one that is never reached.

    Where a bpf_loop is inlined the figure may be up to 7 bytes too large, rounded up to 8, as
    the kernel itself rounds it.

    Args:
        program: with the columns seen and callback.
        starts: of the verifier's subprogs; empty where the log does not tell.
        depths: what the log tells of those that were reached.
    """
    seen = program.columns[SEEN].values
    callback = program.columns[CALLBACK].values
    insns = program.insns
    known = np.array(starts or program.subprogs.start, np.int64)
    ends = np.append(known[1:], len(insns))
    is_loop = isa.is_helper_call(insns) & (insns["imm"] == _LOOP) & (callback != NONE)
    is_waiting = _waits(insns, seen)
    before: dict[int, int] = {}
    left = iter(depths)
    for start, end in zip(known.tolist(), ends.tolist(), strict=True):
        if not seen[start:end].any():
            continue
        depth = next(left, 0)
        depth -= _LOOP_BYTES if is_loop[start:end].any() else 0
        depth -= may_goto_bytes() if is_waiting[start:end].any() else 0
        before[start] = max(depth, 0)
    return np.array([before.get(start, 0) for start in program.subprogs.start.tolist()], np.int32)


def _waits(insns: isa.Insns, seen: Mask) -> Mask:
    """(n,) may_gotos that are left: not those that jump over nothing but dead code."""
    slots = np.flatnonzero(isa.is_may_goto(insns) & seen)
    live = np.append(0, np.cumsum(seen))
    off = insns["off"][slots].astype(np.int64)
    target = np.clip(slots + 1 + off, 0, len(insns))
    out = np.zeros(len(insns), bool)
    out[slots] = (off < 0) | (live[target] > live[slots + 1])
    return out
