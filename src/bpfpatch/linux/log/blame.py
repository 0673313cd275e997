"""Which instructions of a path made a value what it is, and on which branches that hangs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa import Insns

from .failpath import FailPath, PathStep

MOST: Final = 24
"""Instructions that a slice has at most."""
_FP: Final = 10
_RESULT: Final = 1
_CLOBBERED: Final = 0b111111
_ARGS: Final = 0b111110
_CLASS, _LDX, _ST, _STX, _JMP, _JMP32 = 7, 1, 2, 3, 5, 6
_CALL, _EXIT, _JA = 0x85, 0x95, (0x05, 0x06)
_MOV: Final = 0xB0

Thing = tuple[int, str]
"""A frame, and a register or slot of it: ``R1``, ``fp-8``."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One instruction of a slice.

    Attributes:
        index: of the step on the path.
        is_branch: whether it decides on the value, and does not make it.
        is_taken: whether that branch was taken.
    """

    index: int
    is_branch: bool = False
    is_taken: bool = False


def slice_of(path: FailPath, insns: Insns, register: int | None) -> tuple[Cause, ...]:
    """The instructions that made a register what it is at the end of a path, oldest first.

    Args:
        path: the path.
        insns: of the program that was submitted.
        register: the register; None for what the last instruction reads.
    """
    steps = path.steps
    if not steps or steps[-1].slot >= len(insns):
        return ()
    some = insns[np.array([min(step.slot, len(insns) - 1) for step in steps])]
    reads, writes = isa.reads(some).tolist(), isa.writes(some).tolist()
    dst, src = isa.dst(some).tolist(), isa.src(some).tolist()
    off = some["off"].tolist()
    last = steps[-1]
    mask = reads[-1] if register is None else 1 << register
    wanted: set[Thing] = {(last.frame, f"R{reg}") for reg in range(10) if mask >> reg & 1}
    out: list[Cause] = []
    for index in range(len(steps) - 2, -1, -1):
        step = steps[index]
        if not wanted or len(out) >= MOST:
            break
        fields = (reads[index], writes[index], dst[index], src[index], off[index])
        cause = _look_back(path, index, fields, wanted)
        if cause is not None:
            out.append(cause)
        _change_frames(steps, index, wanted)
        if step.slot == steps[-1].slot and step.frame == steps[-1].frame and len(out) > MOST // 2:
            break
    return tuple(reversed(out))


def _look_back(
    path: FailPath, index: int, fields: tuple[int, int, int, int, int], wanted: set[Thing]
) -> Cause | None:
    """What one step has to do with what is wanted, which it changes to what it needs itself."""
    step = path.steps[index]
    reads, writes, dst, src, off = fields
    kind = step.code & _CLASS
    if kind in (_JMP, _JMP32) and step.code not in (_CALL, _EXIT, *_JA):
        tested = {(step.frame, f"R{reg}") for reg in range(10) if reads >> reg & 1}
        if tested & wanted or _shares_id(step, tested, wanted):
            return Cause(index, is_branch=True, is_taken=bool(path.outcome(index)))
        return None
    if kind in (_ST, _STX):
        stored = _slot(step, dst, off)
        is_cause = stored in wanted
        if stored is not None and is_cause:
            wanted.discard(stored)
            wanted |= {(step.frame, f"R{src}")} if kind == _STX else set()
        return Cause(index) if is_cause else None
    if step.code == _CALL:
        writes = _CLOBBERED
    made = {(step.frame, f"R{reg}") for reg in range(10) if writes >> reg & 1}
    if not made & wanted:
        return None
    wanted -= made
    thing = _slot(step, src, off) if kind == _LDX else None
    if thing is not None:
        wanted.add(thing)
    elif step.code != _CALL:
        wanted |= {(step.frame, f"R{reg}") for reg in range(10) if reads >> reg & 1}
    return Cause(index)


def _slot(step: PathStep, base: int, off: int) -> Thing | None:
    """The slot that a step's access is to, if it is to the stack at a known place."""
    state = step.before.get(f"R{base}")
    if base != _FP and (state is None or state.kind != "fp" or state.has_variable_part):
        return None
    at, frame = off, step.frame
    if base != _FP and state is not None:
        at += state.off
        frame = step.frame if state.frame is None else state.frame
    return frame, f"fp{at // 8 * 8}"


def _shares_id(step: PathStep, tested: set[Thing], wanted: set[Thing]) -> bool:
    """Whether what a branch tests is the same value as something that is wanted."""
    ids = {state.id for name, state in step.before.items() if (step.frame, name) in tested}
    ids.discard(0)
    same = (state.id for name, state in step.before.items() if (step.frame, name) in wanted)
    return any(one in ids for one in same)


def _change_frames(steps: tuple[PathStep, ...], index: int, wanted: set[Thing]) -> None:
    """Rename what is wanted where the path enters or leaves a function in front of a step."""
    if index == 0:
        return
    before, here = steps[index - 1], steps[index]
    if here.frame > before.frame:
        for reg in range(1, 6):
            if (here.frame, f"R{reg}") in wanted:
                wanted.discard((here.frame, f"R{reg}"))
                wanted.add((before.frame, f"R{reg}"))
    elif here.frame < before.frame and (here.frame, "R0") in wanted:
        wanted.discard((here.frame, "R0"))
        wanted.add((before.frame, "R0"))
