"""One function, followed with the addresses of stack frames that its registers may hold."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final, Protocol

import numpy as np

from bpfpatch import isa
from bpfpatch.facts.helperproto import ArgKind, HelperAccess, HelperProto
from bpfpatch.facts.helpers import HELPER_PROTOS
from bpfpatch.isa.semantics import ALU64, CLASS_MASK, SRC_X
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask

from .blocks import Blocks
from .stackcode import FrameCode
from .stackvalues import (
    DEEPEST,
    LOADED,
    SCALAR,
    SPACE,
    Address,
    Range,
    State,
    address_in,
    anywhere,
    base_of,
    bounded,
    ceiling_of,
    computed,
    floor_of,
    joined,
    loaded_from,
    merged,
    moved,
    number_in,
    put_into,
    stored_in,
    widened,
)

_FP: Final = int(isa.R10)
_MOV64_REG, _ADD64_REG, _SUB64_REG = 0xBF, 0x0F, 0x1F
_ADD64_IMM, _SUB64_IMM = 0x07, 0x17
_ALU: Final = 0x04
_LDX, _ST, _STX = 1, 2, 3
_DW, _SIZES = 0x18, (4, 2, 1, 8)
_MODE, _MEM, _ATOMIC = 0xE0, 0x60, 0xC0
_LOAD_ACQUIRE, _STORE_RELEASE = 0x100, 0x110
_HELPER, _SUBPROG = int(isa.PseudoCall.HELPER), int(isa.PseudoCall.SUBPROG)
_FOLLOWERS: Final = frozenset(
    isa.HELPER_IDS[name]
    for name in (
        "snprintf", "seq_printf", "trace_vprintk", "snprintf_btf", "seq_printf_btf", "sys_bpf",
    )
)  # fmt: skip
"""Helpers that follow addresses in what they are given."""
_OFTEN: Final = 24
"""After so many visits of a block what still changes is taken to have no bounds."""

Given = dict[int, Address]
"""By register the address that a call is given there."""
Reach = dict[int, tuple[int, int]]
"""By base the lowest place that is touched, and the one after the highest."""


@dataclass(slots=True, eq=False)
class WalkStep:
    """What an instruction does with the frame's bytes; masks, bit n for the byte at R10 - 512 + n.

    Attributes:
        slot: of the instruction.
        reads: bytes that it may read.
        writes: bytes that it certainly overwrites.
        holds: bytes that the kernel may look at behind the program's back.
        touches: bytes that it may do anything with.
    """

    slot: int
    reads: int = 0
    writes: int = 0
    holds: int = 0
    touches: int = 0


class Walks(Protocol):
    """What is known of all functions."""

    view: CodeView
    blocks: Blocks
    callee: dict[int, int]
    checked: Mask

    def reach(self, subprog: int, args: int) -> Reach:
        """How far a subprog goes, with some of its arguments addresses in a frame."""

    def callbacks(self, slot: int, register: int) -> set[int]:
        """The subprogs that a helper may be told to call, by the address in a register."""


class FrameWalk:
    """One subprog, with some of its arguments addresses in a caller's frame."""

    def __init__(self, walks: Walks, subprog: int, args: int) -> None:
        self.walks = walks
        self.subprog = subprog
        self.args = args
        self.touched: Reach = {}
        self.tracks = self.needs_numbers = False
        self.step: WalkStep | None = None

    def reach(self) -> Reach:
        """How far it goes from each base."""
        self._solve()
        return self.touched

    def steps(self) -> list[list[WalkStep]]:
        """What its instructions do with the frame, by block."""
        into = self._solve()
        blocks = self.walks.blocks
        first = int(np.searchsorted(blocks.subprog, self.subprog))
        out: list[list[WalkStep]] = []
        for block in range(first, int(np.searchsorted(blocks.subprog, self.subprog, "right"))):
            found: list[WalkStep] = []
            if block in into:
                self._block(block, into[block], found)
            out.append(found)
        return out

    def _solve(self) -> dict[int, State]:
        """Follow all blocks until nothing is new; gives what is known in front of each."""
        walks = self.walks
        code = FrameCode.of(walks.view, walks.blocks, self.subprog, self.args, tracks=False)
        if code is None:
            return {}
        self.code = code
        into = self._run()
        if self.needs_numbers:
            # Few functions add numbers to such addresses; only there it is worth to follow them.
            self.touched, self.tracks = {}, True
            tracked = FrameCode.of(walks.view, walks.blocks, self.subprog, self.args, tracks=True)
            assert tracked is not None
            self.code = tracked
            into = self._run()
        return into

    def _run(self) -> dict[int, State]:
        """Follow all blocks to a fixpoint; gives what is known in front of each."""
        begin: State = {_FP: (0, 0, True)}
        for arg in range(1, 6):
            if self.args >> arg & 1:
                begin[arg] = arg * SPACE, arg * SPACE, True
        into: dict[int, State] = {self.code.first: begin}
        visits: dict[int, int] = {}
        todo, is_queued = [self.code.first], {self.code.first}
        while todo:
            block = heappop(todo)
            is_queued.discard(block)
            out = self._block(block, into[block], None)
            for goal, way in self.code.after[block - self.code.first]:
                known = into.get(goal)
                mine = self._refined(block, out, way) if self.tracks else out
                if known == mine:
                    continue
                new = mine if known is None else merged(known, mine)
                if new == known:
                    continue
                if known is not None:
                    visits[goal] = visits.get(goal, 0) + 1
                    if visits[goal] > _OFTEN:
                        new = widened(known, new)
                        if new == known:
                            continue
                into[goal] = new
                if goal not in is_queued:
                    is_queued.add(goal)
                    heappush(todo, goal)
        return into

    def _refined(self, block: int, out: State, way: bool) -> State:
        end = self.code.ends[block - self.code.first]
        if end is None:
            return out
        code, dst, imm = end
        before = out.get(SCALAR + dst)
        after = bounded(code, imm, None if before is None else before[:2], is_taken=way)
        if after == before or after is None:
            return out
        return {**out, SCALAR + dst: after}

    def _block(self, block: int, state: State, steps: list[WalkStep] | None) -> State:
        at = block - self.code.first
        begin, end = self.code.starts[at], self.code.starts[at + 1]
        if begin == end:
            return state
        state = state.copy()
        for is_odd, slot, code, dst, src, off, imm, writes, taken in self.code.rows[begin:end]:
            if not is_odd and dst not in state and src not in state:
                continue
            if steps is not None:
                self.step = WalkStep(slot)
            self._insn(state, slot, code, dst, src, off, imm, writes, taken)
            if steps is not None and self.step is not None:
                if self.step.touches:
                    steps.append(self.step)
                self.step = None
        return state

    def _insn(
        self,
        state: State,
        slot: int,
        code: int,
        dst: int,
        src: int,
        off: int,
        imm: int,
        writes: int,
        taken: int,
    ) -> None:
        kind = code & CLASS_MASK
        new: Address | None = None
        number: Range | None = None
        if kind in (ALU64, _ALU):
            if kind == ALU64:
                new = self._pointer(state, code, dst, src, off, imm)
            if self.tracks and new is None:
                right = number_in(state, src) if code & SRC_X else (imm, imm)
                number = computed(code, off, number_in(state, dst), right)
        elif kind in (_LDX, _ST, _STX):
            new = self._access(state, code, dst, src, off, imm)
            if self.tracks and kind == _LDX and code & _MODE == _MEM and code & _DW != _DW:
                number = 0, (1 << 8 * _SIZES[code >> 3 & 3]) - 1
        elif code == isa.CALL:
            self._call(state, slot, src, imm, taken)
        if not writes:
            return
        for register in [r for r in state if r >= 0 and writes >> (r & 15) & 1]:
            del state[register]
        if new is not None:
            state[dst] = new
        elif number is not None:
            state[SCALAR + dst] = number

    def _pointer(
        self, state: State, code: int, dst: int, src: int, off: int, imm: int
    ) -> Address | None:
        """The address that 64-bit arithmetic may make."""
        if code == _MOV64_REG:
            return address_in(state, src) if off == 0 else None
        left = address_in(state, dst)
        if code in (_ADD64_IMM, _SUB64_IMM):
            change = imm if code == _ADD64_IMM else -imm
            return None if left is None else moved(left, change, change)
        if code not in (_ADD64_REG, _SUB64_REG):
            return None
        right = address_in(state, src)
        out = None
        if left is not None and not (right is not None and right[2]):
            number = number_in(state, src)
            if number is None:
                self.needs_numbers = True
                out = anywhere(left)
            elif code == _ADD64_REG:
                out = moved(left, *number)
            else:
                out = moved(left, -number[1], -number[0])
        if right is not None and code == _ADD64_REG and not (left is not None and left[2]):
            number = number_in(state, dst)
            self.needs_numbers |= number is None
            out = joined(out, anywhere(right) if number is None else moved(right, *number))
        return out

    def _access(
        self, state: State, code: int, dst: int, src: int, off: int, imm: int
    ) -> Address | None:
        """A load or store; the addresses that it may load into the destination."""
        if code in isa.STACK_ARG_STORES and dst == isa.PARAMS:
            if code & CLASS_MASK == _STX and address_in(state, src) is not None:
                self._escape()
            return None
        is_atomic = code & _MODE == _ATOMIC and code & CLASS_MASK == _STX
        loads = code & CLASS_MASK == _LDX or (is_atomic and imm == _LOAD_ACQUIRE)
        base = address_in(state, src if loads else dst)
        if base is None:
            return None
        place = moved(base, off, off)
        size = _SIZES[code >> 3 & 3]
        stores = not loads and (not is_atomic or imm == _STORE_RELEASE)
        self._touch(place, size, is_read=not stores, is_write=stores)
        is_word = code & _DW == _DW
        if loads:
            return loaded_from(state, place) if is_word else None
        value = address_in(state, src) if stores and code & CLASS_MASK == _STX else None
        put_into(state, place, size, value if is_word else None)
        return None

    def _escape(self) -> None:
        """An address is passed by R11: what is done with it is not followed."""
        for base in range(LOADED + 1):
            self._touch((floor_of(base), ceiling_of(base), False), 1, is_read=True, holds=True)

    def _call(self, state: State, slot: int, src: int, imm: int, taken: int) -> None:
        given = {
            register: address
            for register in range(1, 6)
            if taken >> register & 1 and (address := address_in(state, register)) is not None
        }
        callee = self.walks.callee.get(slot) if src == _SUBPROG else None
        if callee is not None:
            if given:
                self._follow(state, given, callee, {register: register for register in given})
            return
        proto = HELPER_PROTOS.get(imm) if src == _HELPER else None
        if proto is not None:
            self._helper(state, given, slot, proto)
        else:
            for address in given.values():
                self._touch(address, SPACE, is_read=True, holds=src != _HELPER)
        if given and (src != _HELPER or imm in _FOLLOWERS):
            for address in stored_in(state):
                self._touch(address, SPACE, is_read=True)

    def _helper(self, state: State, given: Given, slot: int, proto: HelperProto) -> None:
        """What a helper does with the addresses that it is given."""
        reads = {one.reg: one for one in proto.reads}
        writes = {one.reg: one for one in proto.writes}
        for register, address in given.items():
            is_known = register in reads or register in writes
            for access in (reads.get(register), writes.get(register)):
                if access is not None:
                    size = _size(state, access)
                    self._touch(address, size, is_read=access is reads.get(register))
            if not is_known:
                self._touch(address, SPACE, is_read=True)
            kinds = proto.args[register - 1].kinds if register <= len(proto.args) else ()
            if ArgKind.DYNPTR in kinds:
                self._touch(address, SPACE, holds=True)
        callback = proto.callback
        if callback is None or callback.is_late:
            return
        args = {arg: at for at, arg in enumerate(callback.args, 1)}
        for register, address in given.items():
            if f"r{register}" in args:
                for one in self.walks.callbacks(slot, callback.reg):
                    self._follow(state, {register: address}, one, {register: args[f"r{register}"]})

    def _follow(self, state: State, given: Given, callee: int, args: dict[int, int]) -> None:
        """What a callee does with the addresses that it is given."""
        if self.walks.checked[callee]:
            for address in given.values():
                self._touch(address, SPACE, is_read=True)
            return
        reach = self.walks.reach(callee, sum(1 << arg for arg in args.values()))
        for register, address in given.items():
            if args[register] in reach:
                self._shifted(address, args[register], reach[args[register]])
        if LOADED in reach:
            for address in stored_in(state):
                self._shifted(address, LOADED, reach[LOADED])
            if any(base_of(address[1]) for address in given.values()):
                self._shifted((LOADED * SPACE, LOADED * SPACE, False), LOADED, reach[LOADED])

    def _shifted(self, address: Address, base: int, reach: tuple[int, int]) -> None:
        """A callee goes from an address as far as from its own base."""
        low, high = reach[0] - base * SPACE, reach[1] - base * SPACE
        if low <= -SPACE // 2:
            self._touch(anywhere(address), 1, is_read=True)
            return
        self._touch(moved((*address[:2], False), low, low), max(high - low, 0), is_read=True)

    def _touch(
        self,
        place: Address,
        size: int,
        *,
        is_read: bool = False,
        is_write: bool = False,
        holds: bool = False,
    ) -> None:
        """Note an access of so many bytes upwards from a place."""
        base, other = base_of(place[0]), base_of(place[1])
        for one in range(base, other + 1):
            low, high = place[0], min(place[1] + size, ceiling_of(one))
            if base != other:
                low, high = floor_of(one), ceiling_of(one)
            old = self.touched.get(one)
            new = (low, high) if old is None else (min(low, old[0]), max(high, old[1]))
            if one == 0 and place[0] >= 0:
                continue  # nothing of the frame is there
            self.touched[one] = new
        step = self.step
        if step is None or base != 0:
            return
        low = max(place[0], -DEEPEST)
        high = min(place[1] + size, 0) if other == 0 else 0
        if low >= high:
            return
        mask = ((1 << high - low) - 1) << low + DEEPEST
        step.touches |= mask
        step.reads |= mask * is_read
        step.holds |= mask * holds
        step.writes |= mask * (is_write and place[2])


def _size(state: State, access: HelperAccess) -> int:
    """The bytes that a helper gets at, at most."""
    if access.n_bytes > 0:
        return access.n_bytes
    number = number_in(state, access.size_reg) if access.size_reg else None
    return SPACE if number is None or number[0] < 0 else min(number[1], SPACE)
