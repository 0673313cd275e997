"""The obvious relaxation: while a jump is too far, put an island in its way and look again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.patch import Linearized
from bpfpatch.program import INSERTED, Program

MOST_INSNS = 300


class CrowdedError(Exception):
    """Islands push each other apart, without an end."""


@dataclass(eq=False)
class Insn:
    """One instruction, and what it refers to."""

    rows: list[tuple[int, int, int, int]]
    subprog: int
    target: Insn | None = None


def relaxed(program: Program, reach: int) -> Program:
    """A program that does the same, in which each jump of 16 bits is within reach.

    Raises:
        CrowdedError: it grew too long.
    """
    insns = _parsed(program)
    while True:
        slots = _slots(insns)
        far = next((insn for insn in insns if _is_far(insn, slots, reach)), None)
        if far is None:
            return Program(_flat(insns, slots))
        if len(insns) > MOST_INSNS:
            raise CrowdedError
        _put_island(insns, slots, far, reach)


def _parsed(program: Program) -> list[Insn]:
    by_slot: dict[int, Insn] = {}
    subprog = program.subprogs.of(np.arange(len(program), dtype=np.int32)).tolist()
    second = program.second_slots.tolist()
    insns: list[Insn] = []
    for slot, row in enumerate(program.insns.tolist()):
        if second[slot]:
            insns[-1].rows.append(row)
            continue
        by_slot[slot] = Insn([row], subprog[slot])
        insns.append(by_slot[slot])
    refs = program.refs
    for slot, target in zip(refs.slot.tolist(), refs.target.tolist(), strict=True):
        by_slot[slot].target = by_slot[target]
    return insns


def _slots(insns: list[Insn]) -> dict[int, int]:
    out: dict[int, int] = {}
    slot = 0
    for insn in insns:
        out[id(insn)] = slot
        slot += len(insn.rows)
    return out


def _distance(insn: Insn, slots: dict[int, int]) -> int:
    assert insn.target is not None
    return slots[id(insn.target)] - slots[id(insn)] - 1


def _is_short(insn: Insn) -> bool:
    code = insn.rows[0][0]
    return code & 7 in (5, 6) and code not in (isa.GOTOL, isa.CALL, isa.EXIT)


def _is_far(insn: Insn, slots: dict[int, int], reach: int) -> bool:
    if insn.target is None or not _is_short(insn):
        return False
    return not -reach <= _distance(insn, slots) < reach


def _put_island(insns: list[Insn], slots: dict[int, int], far: Insn, reach: int) -> None:
    """A jump and a jump around it, in front of the last instruction where they are in reach."""
    assert far.target is not None
    at, goal = slots[id(far)], slots[id(far.target)]
    if goal > at:  # the island is one slot behind the place
        places = [insn for insn in insns if at < slots[id(insn)] <= min(at + reach - 1, goal)]
    else:
        places = [insn for insn in insns if max(at - reach + 4, goal + 1) <= slots[id(insn)] <= at]
        places.reverse()
    if not places:
        raise CrowdedError
    where = places[-1]
    around = Insn([(isa.JA, 0, 0, 0)], far.subprog, where)
    island = Insn([(isa.JA, 0, 0, 0)], far.subprog, far.target)
    far.target = island
    index = insns.index(where)
    insns[index:index] = [around, island]


def _flat(insns: list[Insn], slots: dict[int, int]) -> np.ndarray:
    out = np.array([row for insn in insns for row in insn.rows], isa.INSN)
    for insn in insns:
        if insn.target is not None:
            slot = slots[id(insn)]
            out["off" if _is_short(insn) else "imm"][slot] = _distance(insn, slots)
    return out


def assert_same_edges(before: Program, done: Linearized) -> None:
    """From each instruction control goes where it went before, but for what was put in.

    Args:
        before: the program, laid out without any relaxing.
        done: the same with; its inserted instructions are jumps that relax put in.
    """
    after, remap = done.program, done.remap
    new = {int(old): slot for slot, old in enumerate(remap.orig.tolist()) if old >= 0}
    flips = set(remap.modified.tolist())
    for slot in range(len(before)):
        if before.second_slots[slot]:
            continue
        was = [*_edges(before, slot)]
        now = [_arrives(after, remap.orig, edge) for edge in _edges(after, new[slot])]
        code = before.insns["code"][slot]
        if slot in flips and code != isa.JA:
            assert isa.OPPOSITE_JUMPS[code & 0xF0] == after.insns["code"][new[slot]] & 0xF0
            now.reverse()
        assert was == now, (slot, was, now)


def _edges(program: Program, slot: int) -> list[int]:
    """Where control goes from here: on, and to the target of a jump."""
    one = program.insns[slot : slot + 1]
    out = []
    if isa.falls_through(one)[0]:
        out.append(slot + 1 + int(program.insns["code"][slot] == isa.LD_IMM64))
    at = np.searchsorted(program.refs.slot, slot)
    if isa.is_jump(one)[0]:
        out.append(int(program.refs.target[at]))
    return out


def _arrives(program: Program, orig: np.ndarray, slot: int) -> int:
    """The original instruction that control reaches, through jumps that were put in."""
    for _ in range(len(program)):
        if slot == len(program):  # a program that can run past its end
            return int(orig.max()) + 1
        if orig[slot] != INSERTED:
            return int(orig[slot])
        assert program.insns["code"][slot] in (isa.JA, isa.GOTOL)
        at = np.searchsorted(program.refs.slot, slot)
        slot = int(program.refs.target[at])
    raise AssertionError("jumps in a circle")
