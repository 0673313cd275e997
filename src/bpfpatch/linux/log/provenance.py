"""Which ld_imm64 made what a register holds: the map or the callback of a pointer.

A flow analysis of the addresses of maps and functions through moves, arithmetic, stack slots,
map lookups, calls and callbacks. It settles what the verifier's log leaves open, since there
two maps may look the same.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.helperproto import HelperCallback, ResultKind
from bpfpatch.facts.helpers import HELPER_PROTOS, helpers_where
from bpfpatch.program import Program
from bpfpatch.program.types import Mask

State = dict[int, int]
"""Sets of addresses, as bits, by place: a register, or a stack slot's distance from R10."""

Question = tuple[int, int]
"""A slot, and a register whose content before it is asked for."""

# Helpers that hand out a value of the map in R1.
_LOOKUPS: Final = helpers_where(lambda proto: proto.result.kind is ResultKind.VALUE)
# Kinds of a callback's arguments that lead to what the helper has in R1.
_FROM_MAP: Final = ("map", "key", "value")


def _arrivals(callback: HelperCallback) -> dict[int, int]:
    """By a callback's own registers, which of the helper's arrive there."""
    found = {}
    for reg, arg in enumerate(callback.args, 1):
        if arg in _FROM_MAP:
            found[reg] = 1
        elif arg.startswith("r"):
            found[reg] = int(arg[1:])
    return found


_CALLBACKS: Final = {
    number: (proto.callback.reg, _arrivals(proto.callback))
    for number, proto in HELPER_PROTOS.items()
    if proto.callback is not None
}
_FP: Final = 10
_ARGS: Final = range(1, 6)
_MOV64: Final = 0xBF
_ARITH: Final = (0x07, 0x0F, 0x17, 0x1F)
_LOAD64: Final = 0x79
_STORE64: Final = 0x7B
_X: Final = 0x08


class _Op(IntEnum):
    OTHER = 0
    ADDRESS = 1
    MOVE = 2
    ARITH = 3
    FILL = 4
    SPILL = 5
    HELPER = 6
    CALL = 7
    EXIT = 8


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an address comes from.

    Attributes:
        slot: of the ld_imm64.
        is_inner: whether it is a map that was found in the map of that address.
    """

    slot: int
    is_inner: bool = False


def origins(
    program: Program, seen: Mask, outer: Collection[int], asked: Collection[Question]
) -> dict[Question, frozenset[Origin]]:
    """Which addresses may be in registers.

    Args:
        program: as it was submitted.
        seen: (n,) slots that can be reached.
        outer: slots of those ld_imm64 that are of maps of maps.
        asked: slots and registers, before the instruction.
    """
    flow = _Flow(program, seen, frozenset(outer))
    flow.settle()
    return flow.answers(asked)


class _Flow:
    """The analysis: states by leader, run until nothing is new."""

    def __init__(self, program: Program, seen: Mask, outer: frozenset[int]) -> None:
        insns, refs = program.insns, program.refs
        self.n_slots = len(insns)
        self.seen = seen.tolist()
        self.op = _ops(insns).tolist()
        self.dst, self.src = isa.dst(insns).tolist(), isa.src(insns).tolist()
        self.imm, self.off = insns["imm"].tolist(), insns["off"].tolist()
        self.code = insns["code"].tolist()
        self.writes = isa.writes(insns).tolist()
        self.falls = isa.falls_through(insns).tolist()
        self.is_wide = isa.is_ld_imm64(insns).tolist()
        self.starts = program.subprogs.start.tolist()
        self.subprog = program.subprogs.of(np.arange(self.n_slots, dtype=np.int32)).tolist()
        entries = refs.is_entry
        self.jump = dict(
            zip(refs.slot[~entries].tolist(), refs.target[~entries].tolist(), strict=True)
        )
        self.callee = dict(
            zip(refs.slot[entries].tolist(), refs.target[entries].tolist(), strict=True)
        )
        addresses = [slot for slot, op in enumerate(self.op) if op == _Op.ADDRESS and seen[slot]]
        self.addresses = addresses
        self.bit = {slot: 1 << index for index, slot in enumerate(addresses)}
        self.outer = sum(self.bit[slot] for slot in outer if slot in self.bit)
        self.leaders = {*self.starts, *self.jump.values(), *(slot + 1 for slot in self.jump)}
        self.entry: dict[int, State] = {}
        self.wait: set[int] = set()
        self.result: dict[int, int] = {}
        self.callers: dict[int, set[int]] = {}

    def settle(self) -> None:
        """Run until no state grows; they only grow, by finitely many bits."""
        for start in self.starts:
            self._join(start, {})
        while self.wait:
            leader = min(self.wait)
            self.wait.discard(leader)
            self._run(leader)

    def answers(self, asked: Collection[Question]) -> dict[Question, frozenset[Origin]]:
        """Look into the settled states."""
        wanted: dict[int, list[int]] = {}
        for slot, reg in asked:
            wanted.setdefault(slot, []).append(reg)
        out: dict[Question, frozenset[Origin]] = {question: frozenset() for question in asked}
        for leader in list(self.entry):
            state = dict(self.entry[leader])
            for slot in self._walk(leader):
                for reg in wanted.get(slot, ()):
                    out[slot, reg] = self._origins(state.get(reg, 0))
                self._step(slot, state, leader)
        return out

    def _origins(self, mask: int) -> frozenset[Origin]:
        n_bits = len(self.addresses)
        found = (bit for bit in range(2 * n_bits) if mask >> bit & 1)
        return frozenset(Origin(self.addresses[bit % n_bits], bit >= n_bits) for bit in found)

    def _walk(self, leader: int) -> list[int]:
        """The slots from a leader up to the next one."""
        out = []
        slot = leader
        while slot < self.n_slots and self.seen[slot]:
            out.append(slot)
            if not self.falls[slot]:
                break
            slot += 2 if self.is_wide[slot] else 1
            if slot in self.leaders:
                break
        return out

    def _run(self, leader: int) -> None:
        state = dict(self.entry[leader])
        slots = self._walk(leader)
        for slot in slots:
            self._step(slot, state, leader)
        if not slots:
            return
        last = slots[-1]
        if last in self.jump:
            self._join(self.jump[last], state)
        after = last + (2 if self.is_wide[last] else 1)
        if self.falls[last] and after < self.n_slots:
            self._join(after, state)

    def _join(self, slot: int, state: State) -> None:
        known = self.entry.get(slot)
        if known is None:
            known = self.entry[slot] = {}
            self.wait.add(slot)
        for place, mask in state.items():
            if mask & ~known.get(place, 0):
                known[place] = known.get(place, 0) | mask
                self.wait.add(slot)

    def _step(self, slot: int, state: State, leader: int) -> None:
        op, dst, src = self.op[slot], self.dst[slot], self.src[slot]
        if op == _Op.ADDRESS:
            state[dst] = self.bit[slot]
        elif op == _Op.MOVE:
            state[dst] = state.get(src, 0)
        elif op == _Op.ARITH:
            other = state.get(src, 0) if self.code[slot] & _X else 0
            state[dst] = state.get(dst, 0) | other
        elif op == _Op.FILL:
            state[dst] = state.get(self.off[slot], 0)
        elif op == _Op.SPILL:
            state[self.off[slot]] = state.get(src, 0)
        elif op == _Op.HELPER:
            self._helper(self.imm[slot], state)
        elif op == _Op.CALL:
            self._call(self.callee.get(slot, -1), state, leader)
        elif op == _Op.EXIT:
            self._exit(self.starts[self.subprog[slot]], state)
        else:
            for reg in range(_FP):
                if self.writes[slot] >> reg & 1:
                    state[reg] = 0

    def _helper(self, helper: int, state: State) -> None:
        if helper in _CALLBACKS:
            reg, arrives = _CALLBACKS[helper]
            given = {to: state.get(at, 0) for to, at in arrives.items()}
            for slot in self.addresses:
                if self.bit[slot] & state.get(reg, 0) and slot in self.callee:
                    self._join(self.callee[slot], given)
        found = self._value(state.get(1, 0)) if helper in _LOOKUPS else 0
        state.update(dict.fromkeys(_ARGS, 0))
        state[0] = found

    def _value(self, maps: int) -> int:
        """What a lookup finds: the map's own value, or the map in it."""
        return maps & ~self.outer | (maps & self.outer) << len(self.addresses)

    def _call(self, callee: int, state: State, leader: int) -> None:
        self._join(callee, {reg: state.get(reg, 0) for reg in _ARGS})
        self.callers.setdefault(callee, set()).add(leader)
        state.update(dict.fromkeys(_ARGS, 0))
        state[0] = self.result.get(callee, 0)

    def _exit(self, start: int, state: State) -> None:
        known = self.result.get(start, 0)
        if state.get(0, 0) & ~known:
            self.result[start] = known | state.get(0, 0)
            self.wait |= self.callers.get(start, set())


def _ops(insns: isa.Insns) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    code, src, dst = insns["code"], isa.src(insns), isa.dst(insns)
    out = np.zeros(len(insns), np.uint8)
    out[isa.is_ld_imm64(insns) & (src != isa.Pseudo.NUMBER)] = _Op.ADDRESS
    out[(code == _MOV64) & (insns["off"] == 0)] = _Op.MOVE
    out[np.isin(code, _ARITH)] = _Op.ARITH
    out[(code == _LOAD64) & (src == _FP)] = _Op.FILL
    out[(code == _STORE64) & (dst == _FP)] = _Op.SPILL
    out[isa.is_helper_call(insns)] = _Op.HELPER
    out[isa.is_subprog_call(insns)] = _Op.CALL
    out[isa.is_exit(insns)] = _Op.EXIT
    # A second slot has its fields in use for other things.
    out[isa.second_slots(insns)] = _Op.OTHER
    return out
