"""What a round of matching knows of the code, found out once for all rules."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.dataflow.backward import Masks, solve
from bpfpatch.dataflow.bitflow import BitFlow
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.initialized import initialized
from bpfpatch.dataflow.liveness import Liveness, reads_64
from bpfpatch.dataflow.segments import Segments
from bpfpatch.isa.semantics import U64
from bpfpatch.patch import PatchList
from bpfpatch.program.types import Mask, Slots

from ..sites import indirect_targets, landing_pads, opaque_slots

N_REGS: Final = 12
NONE: Final = -1


class RuleCode:
    """Code in flat slots, and what rules ask of it.

    Args:
        patches: the list, as it is now.
        branches: whether known bits come from comparisons, too.
        wanted: (m,) the program's subprogs to look at.

    Attributes:
        view: the code.
        owner: (n,) subprog of each slot, by the program's numbers.
        codes: (n,) opcodes; 0 where no rule fits: at second slots, where a loader may change
            something, where R11 is named, and in subprogs that are not to be looked at.
        code, dst, src, off, imm: fields by slot.
    """

    def __init__(self, patches: PatchList, wanted: Mask, *, branches: bool) -> None:
        view = patches.view()
        insns = view.insns
        self.view = view
        self._branches = branches
        pads = landing_pads(patches.program, view)
        self._pads = pads
        self.opaque: Mask = opaque_slots(patches, view)
        # A pad starts a block as what follows a call that does not return does.
        self.blocks = Blocks.of(view, indirect_targets(patches.program, view), pads - 1)
        self.codes: NDArray[np.uint8] = insns["code"].copy()
        self._wanted = wanted[view.subprog]
        self.owner = view.subprog[view.subprog_of(np.arange(len(view), dtype=np.int32))]
        has_ax = (isa.dst(insns) == isa.AX) | (isa.src(insns) == isa.AX)
        self.codes[self.opaque | (view.node < 0) | has_ax | ~wanted[self.owner]] = 0
        self.code: list[int] = self.codes.tolist()
        self.dst: list[int] = isa.dst(insns).tolist()
        self.src: list[int] = isa.src(insns).tolist()
        self.off: list[int] = insns["off"].tolist()
        self.imm: list[int] = insns["imm"].tolist()
        self._writes = isa.writes(insns)
        self._block_of = np.repeat(
            np.arange(len(self.blocks)), np.diff(self.blocks.start, append=len(view))
        )

    @cached_property
    def block_start(self) -> list[int]:
        """The first slot of each slot's block."""
        starts: list[int] = self.blocks.start[self._block_of].tolist()
        return starts

    @cached_property
    def _liveness(self) -> Liveness:
        first = Liveness.of(self.view, self.blocks)
        # The verifier checks all arguments of a global function, whether it reads them or not.
        args = initialized(self.view, self.blocks, first)
        return Liveness.of(self.view, self.blocks, args=args)

    @property
    def live_after(self) -> Masks:
        """(n,) masks of registers that are read after each slot."""
        return self._liveness.after

    @cached_property
    def upper_live_after(self) -> Masks:
        """(n,) masks of registers whose upper half is read after each slot."""
        insns = self.view.insns
        uses = reads_64(self.view)
        # The verifier looks at fewer arguments than a call may read, which is what counts here.
        calls = np.flatnonzero(isa.is_call(insns) & ~isa.is_subprog_call(insns))
        uses[calls] |= self._liveness.reads[calls]
        segments = Segments.of(self.view, self.blocks)
        return solve(self.view, segments, uses, self._writes).after

    @cached_property
    def bits(self) -> BitFlow:
        """Known bits."""
        return BitFlow(
            self.view,
            self.blocks,
            self.opaque,
            self._pads,
            branches=self._branches,
            subprogs=self._wanted,
        )

    @cached_property
    def writers(self) -> list[list[int]]:
        """By register, the slots that define or destroy it, ascending."""
        return [np.flatnonzero(self._writes >> reg & 1).tolist() for reg in range(N_REGS)]

    @cached_property
    def touchers(self) -> list[list[int]]:
        """By register, the slots that read, define or destroy it, ascending."""
        touched = self._liveness.reads | self._writes
        return [np.flatnonzero(touched >> reg & 1).tolist() for reg in range(N_REGS)]

    @cached_property
    def changers(self) -> list[int]:
        """Slots that may change memory, ascending: stores, atomics, calls."""
        insns = self.view.insns
        mask = isa.is_store(insns) | isa.is_atomic(insns) | isa.is_call(insns)
        found: list[int] = np.flatnonzero(mask & (self.view.node >= 0)).tolist()
        return found

    def definition(self, register: int, slot: int) -> int:
        """The slot in the same block that gave a register its value before a slot, or NONE."""
        writers = self.writers[register]
        at = bisect_left(writers, slot) - 1
        if at < 0 or writers[at] < self.block_start[slot]:
            return NONE
        return writers[at]

    @cached_property
    def slots_of(self) -> dict[int, Slots]:
        """By opcode, the slots that have it, ascending."""
        order = np.argsort(self.codes, kind="stable").astype(np.int32)
        ordered = self.codes[order]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        found = np.split(order, firsts[1:])
        return dict(zip(ordered[firsts].tolist(), found, strict=True))

    @cached_property
    def defines_dst(self) -> Slots:
        """(n,) `definition` of the register in each ``dst`` field."""
        return self._definitions(isa.dst(self.view.insns))

    @cached_property
    def defines_src(self) -> Slots:
        """(n,) `definition` of the register in each ``src`` field."""
        return self._definitions(isa.src(self.view.insns))

    def _definitions(self, registers: NDArray[np.uint8]) -> Slots:
        out = np.full(registers.size, NONE, np.int32)
        first = self.blocks.start[self._block_of]
        for register in range(N_REGS):
            writers = np.array(self.writers[register], np.int32)
            slots = np.flatnonzero(registers == register)
            if writers.size and slots.size:
                at = np.searchsorted(writers, slots) - 1
                found = np.where(at >= 0, writers[at], NONE)
                out[slots] = np.where(found >= first[slots], found, NONE)
        return out

    @cached_property
    def is_known_dst(self) -> Mask:
        """(n,) whether the value of the register in the ``dst`` field is known."""
        return np.array([not unknown for _, unknown, _ in self.bits.dst], bool)

    @cached_property
    def has_bits_dst(self) -> Mask:
        """(n,) whether anything is known of the register in the ``dst`` field."""
        return np.array([unknown != U64 for _, unknown, _ in self.bits.dst], bool)

    @cached_property
    def is_known_src(self) -> Mask:
        """(n,) the same of the ``src`` field."""
        return np.array([not unknown for _, unknown, _ in self.bits.src], bool)


def between(slots: list[int], first: int, last: int) -> list[int]:
    """Those of ascending slots that lie between two, without these."""
    low, high = bisect_left(slots, first + 1), bisect_left(slots, last)
    return slots[low:high]
