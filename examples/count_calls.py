"""A pass of one's own: count helper calls, and print the number when a function returns.

    bpfpatch apply --plugin examples/count_calls.py -p count-calls lb.o -o lb.counted.o

The number of each run then stands in /sys/kernel/tracing/trace_pipe. The
program must have a licence that is compatible with the GPL, as
bpf_trace_printk asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.passes import Pass, register
from bpfpatch.patch import Body, CodeView, PatchList
from bpfpatch.program.types import Mask

MOST_STACK = 512
FORMAT = int.from_bytes(b"call %d\0", "little")


@register
@dataclass(frozen=True)
class CountCalls(Pass):
    """Count helper calls, and print the number when a function returns.

    The count lives in eight bytes of stack below all that the function uses.

    Attributes:
        helper: count calls of this helper only; 0 for all.
        prints: whether to print; else the count is there for a debugger.
    """

    name = "count-calls"
    helper: int = 0
    prints: bool = True

    def run(self, patches: PatchList) -> None:
        """Put a counter into every function that calls helpers and has room for one."""
        view = patches.view()
        is_call = isa.is_helper_call(view.insns)
        if self.helper:
            is_call &= view.insns["imm"] == self.helper
        is_exit = isa.is_exit(view.insns)
        owner = view.subprog_of(np.arange(len(view), dtype=np.int32))
        for subprog in np.unique(owner[is_call]).tolist():
            mine = owner == subprog
            depth = _stack_used(view, mine) + 8
            if depth > MOST_STACK:
                continue
            # A prologue: it runs when the function is called, not when a loop comes back to it.
            start = view.node[view.starts[subprog]]
            patches.prepend(int(start), Body.asm(f"r0 = 0; *(u64 *)(r10 - {depth}) = 0"))
            # R0 is free in front of a call, which is going to overwrite it.
            count = f"r0 = *(u64 *)(r10 - {depth}); r0 += 1; *(u64 *)(r10 - {depth}) = r0"
            patches.insert_before(view.node[mine & is_call], Body.asm(count))
            if self.prints:
                patches.insert_before(view.node[mine & is_exit], _print(depth))


def _print(depth: int) -> Body:
    """Print the count. R6 is free in front of an exit, and keeps R0 over the call."""
    return Body.asm(
        f"""
        r6 = r0
        r3 = *(u64 *)(r10 - {depth})
        r1 = {FORMAT} ll
        *(u64 *)(r10 - {depth}) = r1
        r1 = r10
        r1 += -{depth}
        r2 = 8
        call bpf_trace_printk
        r0 = r6
        """
    )


def _stack_used(view: CodeView, mine: Mask) -> int:
    """Bytes of stack that a function uses, in eights, as far down as any of its code reaches."""
    insns = view.insns[mine]
    is_access = (isa.is_store(insns) | isa.is_atomic(insns)) & (isa.dst(insns) == isa.R10)
    is_access |= isa.is_load(insns) & (isa.src(insns) == isa.R10)
    # An address is R10's copy, and a negative number added to it.
    is_sum = insns["code"] == isa.BY_NAME["add64_imm"].code
    reach = np.concatenate([insns["off"][is_access], insns["imm"][is_sum]])
    reach = reach[(reach < 0) & (reach >= -MOST_STACK)]
    return -(int(reach.min(initial=0)) // 8 * 8)
