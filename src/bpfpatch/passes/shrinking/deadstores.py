"""dead-stores: take out what writes a register or the frame where nothing reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.dataflow.stacklive import FrameLiveness
from bpfpatch.patch import PatchList
from bpfpatch.program.types import Mask

from ..base import Pass, register
from ..setting import Setting
from .code import Scope, ShrinkCode, run_rounds, scope_for

_KIND, _LDX, _ST, _STX, _MODE, _MEM = 0x07, 1, 2, 3, 0xE0, 0x60


@register
@dataclass(frozen=True)
class DeadStores(Pass):
    """Remove what writes a register or bytes of the stack that nothing reads any more.

    Registers: arithmetic, moves, constants, addresses and loads. A load has no other effect: one
    that faults gives 0. What a helper, a kernel function or a called function may be given counts
    as read.

    Stack: stores that certainly go to bytes of the function's own frame of which none is read
    before it is written again, by the function, by what it calls, or by a helper or callback that
    gets an address in the frame.
    """

    name = "dead-stores"
    knows_landing_pads = True

    def run_for(self, patches: PatchList, setting: Setting) -> None:
        """Delete until there are no more, or for a bounded number of rounds."""
        drop_dead_stores(patches, scope_for(patches, setting, is_safe=True))


def drop_dead_stores(patches: PatchList, scope: Scope) -> int:
    """Run the pass; gives how many instructions went."""
    return run_rounds(patches, scope, _look)


def _look(code: ShrinkCode) -> int:
    dead = _dead_registers(code)
    dead[_dead_frame_stores(code)] = True
    slots = np.flatnonzero(dead)
    code.patches.delete(code.view.node[slots])
    return int(slots.size)


def _is_pure(code: ShrinkCode) -> Mask:
    """(n,) instructions that do nothing but write their destination."""
    insns = code.view.insns
    # The address of a function keeps that function in the program: that is for dce.
    out = isa.is_alu(insns) | isa.is_load(insns) | isa.is_ld_imm64(insns)
    out[code.view.ref_slot] = False
    return out & code.may_change


def _dead_registers(code: ShrinkCode) -> Mask:
    """(n,) instructions whose result nothing reads, and those that only such ones read."""
    live = code.liveness
    pure = _is_pure(code)
    dead: Mask = pure & (live.after & live.writes == 0)
    first = np.flatnonzero(dead)
    if not first.size:
        return dead
    # Within a block, what a dead one reads can be dead at once.
    blocks = code.blocks
    reads, writes = live.reads, live.writes
    for block in np.unique(np.searchsorted(blocks.start, first, "right") - 1).tolist():
        start, last = int(blocks.start[block]), int(blocks.last[block])
        wanted = int(live.after[last])
        rows = zip(
            range(last, start - 1, -1),
            reads[start : last + 1][::-1].tolist(),
            writes[start : last + 1][::-1].tolist(),
            pure[start : last + 1][::-1].tolist(),
            (code.view.node[start : last + 1][::-1] < 0).tolist(),
            strict=True,
        )
        for slot, reading, writing, is_pure, is_second in rows:
            if is_second:
                continue
            if is_pure and not writing & wanted:
                dead[slot] = True
                continue
            wanted = wanted & ~writing | reading
    return dead


def _dead_frame_stores(code: ShrinkCode) -> list[int]:
    """Slots of stores to bytes of the frame that are not read before they are written again."""
    insns = code.view.insns
    kind = insns["code"] & _KIND
    is_store = ((kind == _ST) | (kind == _STX)) & (insns["code"] & _MODE == _MEM)
    is_store &= code.may_change
    owners = np.unique(code.view.subprog_of(np.flatnonzero(is_store).astype(np.int32)))
    out: list[int] = []
    for subprog in owners.tolist():
        frame = FrameLiveness(code.walks, subprog)
        out += [slot for slot in frame.unread_writes() if is_store[slot]]
    return out
