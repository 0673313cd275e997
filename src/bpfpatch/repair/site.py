"""One refusal, and the code around it as it is now: what kinds of mending work with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from bpfpatch.dataflow import Blocks, Liveness, StackUse, initialized
from bpfpatch.linux.log.failpath import PathStep
from bpfpatch.linux.log.refusal import Refusal
from bpfpatch.linux.log.regstate import RegState
from bpfpatch.passes.sites import indirect_targets
from bpfpatch.patch import CodeView, PatchList
from bpfpatch.program.types import Slots

_FP: Final = 10
_DEEPEST: Final = 512
_LDX, _ACCESSES = 1, (1, 2, 3)
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one instruction."""

    code: int
    dst: int
    src: int
    off: int
    imm: int

    @property
    def size(self) -> int:
        """Bytes of a load or store."""
        return _SIZES[self.code & 0x18]


class SiteCode:
    """A list's code as it is now, with analyses that are made when they are asked for."""

    def __init__(self, patches: PatchList) -> None:
        self.patches = patches
        self.view: CodeView = patches.view()

    @cached_property
    def blocks(self) -> Blocks:
        """Basic blocks."""
        return Blocks.of(self.view, indirect_targets(self.patches.program, self.view))

    @cached_property
    def liveness(self) -> Liveness:
        """What is read later."""
        first = Liveness.of(self.view, self.blocks)
        is_set = initialized(self.view, self.blocks, first)
        return Liveness.of(self.view, self.blocks, args=is_set)

    @cached_property
    def _stack(self) -> StackUse:
        return StackUse.of(self.view, self.blocks)

    def subprog(self, slot: int) -> int:
        """The subprog that a slot is in, as an index into the view's ``starts``."""
        return int(self.view.subprog_of(np.array([slot], np.int32))[0])

    def name(self, subprog: int) -> str:
        """A subprog's name."""
        return self.patches.program.subprogs.names[int(self.view.subprog[subprog])]

    def span(self, subprog: int) -> tuple[int, int]:
        """A subprog's first slot, and the one after its last."""
        starts = self.view.starts
        end = int(starts[subprog + 1]) if subprog + 1 < len(starts) else len(self.view)
        return int(starts[subprog]), end

    def block(self, slot: int) -> int:
        """The block that a slot is in."""
        return int(np.searchsorted(self.blocks.start, slot, side="right")) - 1

    def fields(self, slot: int) -> Fields:
        """The fields of an instruction."""
        insn = self.view.insns[slot]
        regs = int(insn["regs"])
        return Fields(int(insn["code"]), regs & 15, regs >> 4, int(insn["off"]), int(insn["imm"]))

    def depth(self, subprog: int) -> int:
        """Bytes of a frame that may be in use: all of it, where that cannot be told."""
        stack = self._stack
        return int(stack.deepest[subprog]) if stack.is_known[subprog] else _DEEPEST

    def lowest_taken(self, subprog: int) -> int:
        """The lowest place in the frame that is used by its address; below it are only spills.

        What a load or store relative to R10 itself touches does not count.
        """
        view, touched = self.view, 0
        for steps in self._stack.walks.steps(subprog):
            for step in steps:
                insn = view.insns[step.slot]
                base = int(insn["regs"]) >> (4 if int(insn["code"]) & 7 == _LDX else 0) & 15
                if int(insn["code"]) & 7 not in _ACCESSES or base != _FP:
                    touched |= step.touches
        return (touched & -touched).bit_length() - 1 - _DEEPEST if touched else 0

    def room(self, subprog: int) -> int:
        """Bytes that a frame may grow by in the worst chain of calls, as far as can be told."""
        return int(self._stack.room[subprog])

    def steps_between(self, first: int, last: int) -> bool:
        """Whether the one runs straight into the other: both are in one block, in this order."""
        return first <= last and self.block(first) == self.block(last)


class RepairSite:
    """A refused instruction.

    Args:
        code: the code as it is now.
        refusal: what the verifier said.
        origin: (n,) slot of that code for each slot of the program that was refused.
        name: of the program that was refused.
    """

    def __init__(self, code: SiteCode, refusal: Refusal, origin: Slots, name: str) -> None:
        self.code = code
        self.refusal = refusal
        self.program = name
        self._origin = origin
        self._frames: dict[int, int] = {}

    @property
    def patches(self) -> PatchList:
        """The list."""
        return self.code.patches

    @property
    def steps(self) -> tuple[PathStep, ...]:
        """The path."""
        return self.refusal.path.steps

    @property
    def last(self) -> int:
        """Index of the step that was refused."""
        return len(self.steps) - 1

    def slot(self, index: int) -> int:
        """The slot, in the code, of a step."""
        return int(self._origin[self.steps[index].slot])

    def node(self, index: int) -> int:
        """The node of a step."""
        return int(self.code.view.node[self.slot(index)])

    def fields(self, index: int) -> Fields:
        """The fields of a step's instruction."""
        return self.code.fields(self.slot(index))

    def state(self, index: int, name: str) -> RegState | None:
        """What was known in front of a step, of ``R1`` or ``fp-8``."""
        return self.steps[index].before.get(name)

    def backward(self, start: int, frame: int) -> Iterator[int]:
        """Indices of the steps of a frame in front of a step, latest first, up to its entry."""
        for index in range(start - 1, -1, -1):
            step = self.steps[index]
            if step.frame < frame:
                return
            if step.frame == frame:
                yield index

    def entry(self, start: int, frame: int) -> int:
        """Index of the first step of the frame that a step is in."""
        first = start
        for index in range(start, -1, -1):
            if self.steps[index].frame < frame:
                break
            if self.steps[index].frame == frame:
                first = index
        return first

    def fresh(self, slot: int, n_bytes: int = 8) -> int | None:
        """The place, below R10, of 8-aligned bytes that the frame of a slot does not use yet.

        None where there is no room for them in the frame itself; whether there is in the chain of
        calls is for the verifier to say.
        """
        subprog = self.code.subprog(slot)
        depth = self._frames.get(subprog)
        if depth is None:
            depth = self.code.depth(subprog)
        depth = -(-depth // 8) * 8 + -(-n_bytes // 8) * 8
        if depth > _DEEPEST:
            return None
        self._frames[subprog] = depth
        return -depth

    def free(self, slot: int, n_registers: int, avoid: int = 0) -> list[int] | None:
        """Registers that are not read later, in front of an instruction; None for too few."""
        live = int(self.code.liveness.before[slot]) | avoid
        found = [reg for reg in (0, 9, 8, 7, 6, 5, 4, 3, 2, 1) if not live >> reg & 1]
        return found[:n_registers] if len(found) >= n_registers else None
