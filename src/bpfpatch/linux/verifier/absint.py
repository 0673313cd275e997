"""Run a program on what is known of its values, on all of its ways at once.

Source: linux v6.18, kernel/bpf/verifier.c, do_check(), do_check_subprogs().
"""

from __future__ import annotations

from itertools import compress
from typing import Final

import numpy as np

from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.stackuse import StackUse
from bpfpatch.facts.columns import NONE, MemType
from bpfpatch.facts.kinds import MapType, ProgType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.isa import Pseudo
from bpfpatch.isa.semantics import U32
from bpfpatch.program import Program
from bpfpatch.program.types import LOST

from .accesses import Accesses
from .arithmetic import Arithmetic
from .calls import VerifierCalls
from .contexts import fields
from .decoded import (
    ALU,
    ATOMIC,
    BRANCH,
    CALL,
    EXIT,
    GOTO,
    LEGACY_LOAD,
    LOAD,
    MOV_IMM,
    STORE,
    WIDE,
    DecodedCode,
)
from .findings import Findings
from .globalargs import exception_callback, global_arguments
from .jumps import Jumps
from .kerneltypes import KernelTypes
from .scalars import UNKNOWN, Value
from .state import VerifierState
from .values import FUNC, LOST_FUNC, LOST_STACK, is_pointer, pointer
from .worklist import Worklist

_STACK_BYTES: Final = 512
_NUMBER, _FUNC, _BTF_ID = map(int, (Pseudo.NUMBER, Pseudo.FUNC, Pseudo.BTF_ID))
_MAPS: Final = (int(Pseudo.MAP_FD), int(Pseudo.MAP_IDX))
_MAP_VALUES: Final = (int(Pseudo.MAP_VALUE), int(Pseudo.MAP_IDX_VALUE))


class Interpreter:
    """One analysis of one program.

    Args:
        program: flat, as submitted.
        subject: what its loader knows.
        types: the kernel's types.

    Attributes:
        program: the same.
        subject: the same.
        types: the same.
        code: the program's instructions.
        context: the pointers in its context, by byte_off.
        findings: what was found so far.
        accesses: what loads and stores do; further arithmetic, jumps and calls.
        roots: where the subprogs start that are verified on their own.
        push: see `Worklist.push`; further fresh.
    """

    def __init__(self, program: Program, subject: Subject, types: KernelTypes) -> None:
        self.program = program
        self.subject = subject
        self.types = types
        self.code = DecodedCode(program)
        self.context = fields(subject.prog_type) or types.arguments(subject)
        self.findings = Findings(len(program), len(self.code.view.starts))
        self.accesses = Accesses(self)
        self.arithmetic = Arithmetic(self)
        self.jumps = Jumps(self)
        self.calls = VerifierCalls(self)
        self.roots: set[int] = set()
        self._maps = list(subject.maps)
        self._chains: dict[tuple[int, int, int], int] = {}
        self._outer = [0]
        self._entered = [0]
        self._is_repeated = [False]
        self._anywhere: set[int] = set()
        self._is_stack_lost = False
        self._is_func_lost = False
        self._worklist = worklist = Worklist(
            self.code, self.run_block, self._is_repeated, self._anything, self._enter_functions
        )
        self.push, self.fresh = worklist.push, worklist.fresh

    def run(self) -> Findings:
        """Analyse the program from its main subprog on."""
        regs: list[Value] = [None] * 10
        regs[1] = pointer(MemType.CTX)
        self.enter_root(0, regs)
        handler = exception_callback(self.program, self.subject)
        if handler is not None:
            self.enter_global(handler)
        self._worklist.run()
        if self.is_spent or self._is_stack_lost:
            self._reach_as_written()
        return self.findings

    def enter_root(self, slot: int, regs: list[Value]) -> None:
        """A subprog that is verified on its own: the main one, global ones, late callbacks."""
        if slot in self.roots:
            return
        self.roots.add(slot)
        self.push(slot, VerifierState(regs, [{}], (), self.chain(0, LOST, slot)))

    def enter_global(self, slot: int) -> None:
        """A global subprog is called, so that it is verified."""
        if slot not in self.roots:
            found = global_arguments(self.program, self.subject, slot)
            self.enter_root(slot, [self._as_new(value) for value in found])

    def _as_new(self, value: Value) -> Value:
        """An argument that may be null, with an id that no other pointer has."""
        return (*value[:4], self.fresh(), *value[5:]) if is_pointer(value) and value[5] else value

    def enter_with_anything(self, slot: int) -> None:
        """A subprog is called in one chain too many: one look at it is for all such calls."""
        if slot in self._anywhere:
            return
        self._anywhere.add(slot)
        self.roots.add(slot)
        self.push(slot, self._unknown_state(slot))

    def _unknown_state(self, slot: int) -> VerifierState:
        """Anything may be in registers, also what the analysis follows elsewhere."""
        return VerifierState(
            [None] * 10, [{}], (), self.chain(0, LOST, slot), LOST_STACK | LOST_FUNC
        )

    def chain(self, outer: int, slot: int, target: int) -> int:
        """The number of a chain of calls, continued by a call at a slot."""
        key = (outer, slot, target)
        if key not in self._chains:
            number = len(self._outer)
            self._chains[key] = number
            self._outer.append(outer)
            self._entered.append(self.code.subprog[self.code.block_of[target]])
            is_again = slot != LOST and self.code.is_in_loop[self.code.block_of[slot]]
            self._is_repeated.append(is_again or self._is_repeated[outer])
        return self._chains[key]

    # A block.

    def run_block(self, block: int, state: VerifierState, first: int | None = None) -> None:
        """Run a block, from its start or from one of its slots on, and go on to where it leads."""
        code = self.code
        start, end = code.start[block] if first is None else first, code.end[block]
        kind, dst = code.kind, code.dst
        regs = state.regs
        for slot in range(start, end):
            what = kind[slot]
            if what == MOV_IMM:
                regs[dst[slot]] = code.imm64[slot]
            elif what == ALU:
                self.arithmetic.run(slot, state)
            elif what == LOAD:
                self.accesses.load(slot, state)
            elif what == STORE:
                self.accesses.store(slot, state)
            elif what == WIDE:
                regs[dst[slot]] = self._wide(slot)
            elif what == CALL:
                if not self.calls.call(slot, state):
                    self._mark(start, slot + 1)
                    return
                regs = state.regs
            elif what == ATOMIC:
                self.accesses.atomic(slot, state)
            elif what == LEGACY_LOAD:
                self.accesses.legacy_load(slot, state)
            elif what >= BRANCH:
                self._mark(start, slot + 1)
                self._leave(slot, what, state)
                return
        self._mark(start, end)
        if end < len(kind):
            self.push(end, state)

    # When there is too much to do, see `worklist`.

    @property
    def is_spent(self) -> bool:
        """Whether no new chain of calls may begin."""
        return self._worklist.is_spent

    def _anything(self, block: int) -> VerifierState:
        start = self.code.start[block]
        self.findings.forget(start, self.code.end[block])
        return self._unknown_state(start)

    def _enter_functions(self) -> None:
        """A function's address may be lost from here on, so that all of them count as called."""
        code = self.code
        for slot in compress(range(len(code.kind)), self.findings.seen):
            if code.kind[slot] == WIDE and code.src[slot] == _FUNC:
                self.enter_with_anything(code.target[slot])

    def _reach_as_written(self) -> None:
        """A pointer to a stack may have been lost: count all that the code can be seen to reach."""
        view = self.code.view
        use = StackUse.of(view, Blocks.of(view, np.zeros(0, np.int32)))
        seen = np.zeros(len(view.starts), bool)
        seen[view.subprog_of(np.flatnonzero(self.findings.seen).astype(np.int32))] = True
        for subprog in np.flatnonzero(seen & (use.deepest > 0)).tolist():
            self.findings.reach(subprog, -min(int(use.deepest[subprog]), _STACK_BYTES))

    def _mark(self, start: int, end: int) -> None:
        self.findings.seen[start:end] = b"\1" * (end - start)

    def _leave(self, slot: int, what: int, state: VerifierState) -> None:
        """The jump or exit at a block's end."""
        if what == BRANCH:
            self.jumps.branch(slot, state)
        elif what == GOTO:
            self.push(self.code.target[slot], state)
        elif what == EXIT:
            self.calls.leave(slot, state)
        else:
            owner = self.code.subprog[self.code.block_of[slot]]
            for goal in self.code.indirect.get(owner, ()):
                self.push(goal, state.copy())

    def _wide(self, slot: int) -> Value:  # noqa: PLR0911 - one way out for each kind
        """An ld_imm64."""
        src, imm = self.code.src[slot], self.code.imm[slot]
        upper = self.code.imm[slot + 1]
        if src == _NUMBER:
            return (imm & U32) | (upper & U32) << 32
        index = NONE if self.code.ld_map is None else self.code.ld_map[slot]
        if src in _MAPS:
            return pointer(MemType.MAP_PTR, index)
        if src in _MAP_VALUES:
            maps = self.subject.maps
            if 0 <= index < len(maps) and maps[index].type is MapType.ARENA:
                return UNKNOWN
            return pointer(MemType.MAP_VALUE, index, upper & U32)
        if src == _BTF_ID:
            return self.accesses.kernel_variable(imm)
        if src == _FUNC:
            if self.is_spent or self._is_func_lost:
                self.enter_with_anything(self.code.target[slot])
            return pointer(FUNC, self.code.target[slot])
        return UNKNOWN

    # What the parts of the analysis share.

    @property
    def n_chains(self) -> int:
        """How many chains of calls there are so far."""
        return len(self._chains)

    def outer_chain(self, chain: int) -> int:
        """The chain without its last call."""
        return self._outer[chain]

    def map(self, index: int | None) -> MapFacts | None:
        """A map by its number, see `values`."""
        maps = self._maps
        return None if index is None or not 0 <= index < len(maps) else maps[index]

    def inner_map(self, index: int) -> int:
        """The number of the kind of map in a map of maps."""
        inner = self._maps[index].inner
        if inner is None:
            return NONE
        for number, found in enumerate(self._maps):
            if found is inner:
                return number
        self._maps.append(inner)
        return len(self._maps) - 1

    def reach(self, state: VerifierState, frame: int, byte_off: int) -> None:
        """A frame's stack is used from this place on."""
        if -_STACK_BYTES <= byte_off < 0:
            self.findings.reach(self._owner_of(state, frame), byte_off)

    def may_reach(self, state: VerifierState, at: Value) -> bool:
        """Whether a value that is not a pointer may be one to a stack, after states have joined."""
        if not state.lost & LOST_STACK or isinstance(at, int) or is_pointer(at):
            return False
        self._is_stack_lost = True
        return True

    def may_call(self, state: VerifierState, at: Value) -> bool:
        """Whether a value may be any function, all of which count as called then."""
        if not state.lost & LOST_FUNC or isinstance(at, int) or is_pointer(at):
            return False
        if not self._is_func_lost:
            self._is_func_lost = True
            self._enter_functions()
        return True

    def _owner_of(self, state: VerifierState, frame: int) -> int:
        """The subprog that a frame belongs to."""
        chain = state.chain
        for _ in range(len(state.stacks) - 1 - frame):
            chain = self._outer[chain]
        return self._entered[chain]

    def changes_packet(self, target: int) -> bool:
        """Whether a subprog, or one that it calls, calls a helper that may move packet data."""
        return bool(self.code.changes_packet[self.code.subprog[self.code.block_of[target]]])

    def kernel_context(self) -> int:
        """The type of the kernel's own context of such a program, or 0."""
        found = {ProgType.XDP: "xdp_buff"}.get(self.subject.prog_type, "sk_buff")
        return self.types.struct(found)
