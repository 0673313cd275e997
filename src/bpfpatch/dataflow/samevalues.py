"""Which registers, words of the frame and constants hold the same value: a forward data flow.

Each value has a number. Two places with the same number at one point of the code hold the same
64 bits there, on every path to it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa.semantics import (
    ADD,
    ALU,
    ALU64,
    CLASS_MASK,
    END,
    MOV,
    OP_MASK,
    SRC_X,
    SUB,
    U64,
    compute,
)
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask

from .blocks import Blocks
from .stackreach import FrameWalks

N_REGS: Final = 11
_FP: Final = 10
_FRAME_BYTES: Final = 512
_LDX, _ST, _STX = 1, 2, 3
_MODE, _MEM = 0xE0, 0x60
_SIZE_MASK: Final = 0x18
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_OFTEN: Final = 40
"""After so many visits of a block nothing is known in front of it any more."""

_CONST, _FRAME = 0, 1
"""Labels: of what is added to nothing, and to R10."""

Frame = dict[tuple[int, int], int]
"""By (bytes from R10, size) the number of the value that a load of that size gives."""


@dataclass(slots=True, eq=False)
class ValueRecord:
    """Numbers of values in one subprog.

    Attributes:
        rows: by slot of each instruction that can be reached, where its row starts.
        numbers: rows of `N_REGS` numbers: what the registers hold in front of the instruction.
        results: by slot of arithmetic and loads the number of what the instruction gives.
    """

    rows: dict[int, int] = field(default_factory=dict)
    numbers: array[int] = field(default_factory=lambda: array("i"))
    results: dict[int, int] = field(default_factory=dict)

    def at(self, slot: int, register: int) -> int:
        """The number of what a register holds in front of an instruction."""
        return self.numbers[self.rows[slot] + register]


class SameValues:
    """Numbers of values in some subprogs of a view.

    A number stands for a label and a distance from it: what 64-bit additions of constants make of
    a value has the same label. In plain Python, at every instruction::

        number[place] = what the instruction computes of the numbers of its operands
        number[place] = a new one, for what is not understood

    Where paths meet, places that have equal numbers on each of them get one for both. At the head
    of a loop all numbers are new, but for constants and addresses in the frame: so none is of an
    earlier turn.

    Args:
        view: the code.
        blocks: its blocks.
        opaque: (n,) slots whose immediate is not known before loading.
        walks: what subprogs do with their frames.

    Source: value numbering as in Alpern, Wegman and Zadeck, "Detecting Equality of Variables in
    Programs", POPL 1988.
    """

    def __init__(self, view: CodeView, blocks: Blocks, opaque: Mask, walks: FrameWalks) -> None:
        self._view = view
        self._blocks = blocks
        self._walks = walks
        insns = view.insns
        self._code: list[int] = insns["code"].tolist()
        self._dst: list[int] = isa.dst(insns).tolist()
        self._src: list[int] = isa.src(insns).tolist()
        self._off: list[int] = insns["off"].tolist()
        self._imm: list[int] = insns["imm"].tolist()
        writes = isa.writes(insns)
        writes[view.node < 0] = 0
        self._writes: list[int] = writes.tolist()
        self._opaque: list[bool] = opaque.tolist()
        self._is_second: list[bool] = (view.node < 0).tolist()
        self._label_of: list[int] = []
        self._distance: list[int] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self._labels: dict[object, int] = {"const": _CONST, "frame": _FRAME}
        self._n_bytes: dict[int, int] = {}
        self._touches: dict[int, int] = {}
        self._held = 0

    # ---- numbers -----------------------------------------------------------------------------

    def constant(self, number: int) -> int | None:
        """The unsigned 64 bits that a number stands for, or None where it is no constant."""
        return self._distance[number] if self._label_of[number] == _CONST else None

    def frame_off(self, number: int) -> int | None:
        """How many bytes from R10 an address is, or None where it is no known one in the frame."""
        if self._label_of[number] != _FRAME:
            return None
        distance = self._distance[number]
        return distance - (1 << 64) if distance >> 63 else distance

    def _number(self, label: int, distance: int = 0) -> int:
        key = label, distance
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._label_of)
            self._label_of.append(label)
            self._distance.append(distance)
        return found

    def _named(self, key: object, n_bytes: int = 0) -> int:
        """The number of a value that has a name of its own."""
        label = self._labels.get(key)
        if label is None:
            label = self._labels[key] = len(self._labels)
            if n_bytes:
                self._n_bytes[label] = n_bytes
        return self._number(label)

    def _cut(self, n_bytes: int, number: int) -> int:
        """The number of a value's lowest bytes."""
        if n_bytes == 8:
            return number
        label = self._label_of[number]
        if label == _CONST:
            return self._number(_CONST, self._distance[number] & ((1 << 8 * n_bytes) - 1))
        if not self._distance[number] and self._n_bytes.get(label, 8) <= n_bytes:
            return number
        return self._named(("low", n_bytes, number), n_bytes)

    # ---- solving -----------------------------------------------------------------------------

    def solve(self, subprog: int) -> dict[int, tuple[list[int], Frame]]:
        """By block of a subprog what is known in front of it; blocks that none leads to are not in.

        Args:
            subprog: index into the view's ``starts``.
        """
        blocks = self._blocks
        first = int(np.searchsorted(blocks.subprog, subprog))
        stop = int(np.searchsorted(blocks.subprog, subprog, "right"))
        self._touches, self._held = {}, 0
        for steps in self._walks.steps(subprog):
            for step in steps:
                self._touches[step.slot] = step.touches
                self._held |= step.holds
        after = _goals(blocks, subprog, first, stop)
        is_head = bytearray(stop - first)
        for at, goals in enumerate(after):
            for goal in goals:
                is_head[goal - first] |= goal - first <= at
        for goal in blocks.indirect.get(subprog, ()):
            is_head[goal - first] = 1
        begin = [self._named(("entry", register)) for register in range(N_REGS)]
        begin[_FP] = self._number(_FRAME)
        into: dict[int, tuple[list[int], Frame]] = {}
        visits = [0] * (stop - first)
        todo: list[int] = []
        is_queued = bytearray(stop - first)

        def enter(goal: int, regs: list[int], frame: Frame) -> None:
            old = into.get(goal)
            if old is None:
                new = self._renamed(goal, regs, frame) if is_head[goal - first] else (regs, frame)
            elif visits[goal - first] > _OFTEN:
                new = self._nothing(goal)
            else:
                new = self._met(goal, old, regs, frame, is_head=bool(is_head[goal - first]))
            if new == old:
                return
            into[goal] = new
            if not is_queued[goal - first]:
                is_queued[goal - first] = 1
                heappush(todo, goal)

        enter(first, begin, {})
        while todo:
            block = heappop(todo)
            is_queued[block - first] = 0
            visits[block - first] += 1
            regs, frame = into[block]
            regs, frame = regs.copy(), frame.copy()
            self._run(block, regs, frame, None)
            for goal in after[block - first]:
                enter(goal, regs, frame)
        return into

    def record(self, into: dict[int, tuple[list[int], Frame]]) -> ValueRecord:
        """What registers hold at each instruction of the blocks that were reached.

        Args:
            into: what `solve` gave, for the same subprog.
        """
        out = ValueRecord()
        for block in sorted(into):
            regs, frame = into[block]
            self._run(block, regs.copy(), frame.copy(), out)
        return out

    def bounds(self, block: int) -> tuple[int, int]:
        """The slots of a block: the first, and the one after the last."""
        blocks = self._blocks
        end = int(blocks.start[block + 1]) if block + 1 < len(blocks) else len(self._view)
        return int(blocks.start[block]), end

    # ---- meeting -----------------------------------------------------------------------------

    def _renamed(self, block: int, regs: list[int], frame: Frame) -> tuple[list[int], Frame]:
        """All numbers new, but for constants and addresses in the frame."""
        new: dict[int, int] = {}

        def rename(number: int, place: object) -> int:
            if self._label_of[number] in (_CONST, _FRAME):
                return number
            if number not in new:
                # No width: what a name stands for may differ from one meeting to the next.
                new[number] = self._named(("met", block, place))
            return new[number]

        out = [rename(number, register) for register, number in enumerate(regs)]
        return out, {place: rename(number, place) for place, number in sorted(frame.items())}

    def _nothing(self, block: int) -> tuple[list[int], Frame]:
        regs = [self._named(("any", block, register)) for register in range(N_REGS)]
        regs[_FP] = self._number(_FRAME)
        return regs, {}

    def _met(
        self,
        block: int,
        old: tuple[list[int], Frame],
        regs: list[int],
        frame: Frame,
        *,
        is_head: bool,
    ) -> tuple[list[int], Frame]:
        """What holds on both of two paths."""
        new: dict[tuple[int, int], int] = {}

        def meet(one: int, other: int, place: object) -> int:
            if one == other and (not is_head or self._label_of[one] in (_CONST, _FRAME)):
                return one
            key = one, other
            if key not in new:
                new[key] = self._named(("met", block, place))
            return new[key]

        old_regs, old_frame = old
        out = [
            meet(one, other, register)
            for register, (one, other) in enumerate(zip(old_regs, regs, strict=True))
        ]
        kept = {
            place: meet(number, frame[place], place)
            for place, number in sorted(old_frame.items())
            if place in frame
        }
        return out, kept

    # ---- running -----------------------------------------------------------------------------

    def _run(
        self,
        block: int,
        regs: list[int],
        frame: Frame,
        record: ValueRecord | None,
    ) -> None:
        """Go through a block, and change what is known to what is known at its end."""
        begin, end = self.bounds(block)
        codes, dsts, writes, seconds = self._code, self._dst, self._writes, self._is_second
        for slot in range(begin, end):
            if seconds[slot]:
                continue
            if record is not None:
                record.rows[slot] = len(record.numbers)
                record.numbers.extend(regs)
            code = codes[slot]
            kind = code & CLASS_MASK
            if kind in (ALU, ALU64):
                number = self._computed(slot, code, regs)
            elif code == isa.LD_IMM64:
                number = self._wide(slot)
            elif kind == _LDX and code & _MODE == _MEM:
                number = self._load(slot, code, regs, frame)
            else:
                if kind in (_ST, _STX) or slot in self._touches:
                    self._store(slot, code, regs, frame)
                mask = writes[slot]
                if mask:
                    for register in range(_FP):
                        if mask >> register & 1:
                            regs[register] = self._named(("set", slot, register))
                continue
            regs[dsts[slot]] = number
            if record is not None:
                record.results[slot] = number

    def _computed(self, slot: int, code: int, regs: list[int]) -> int:
        """What an arithmetic instruction gives."""
        off, imm = self._off[slot], self._imm[slot]
        operation = code & OP_MASK
        has_src = bool(code & SRC_X) and operation != END
        is_odd = operation == MOV and (off not in (0, 8, 16, 32) or bool(has_src and imm))
        if self._opaque[slot] or is_odd:
            return self._named(slot)
        right = regs[self._src[slot]] if has_src else self._number(_CONST, imm & U64)
        if operation != MOV:
            return self._operated(code, off, imm, regs[self._dst[slot]], right)
        if off:
            return self._operated(code, off, imm, right, right)
        return right if code & CLASS_MASK == ALU64 else self._cut(4, right)

    def _operated(self, code: int, off: int, imm: int, left: int, right: int) -> int:
        """What an operation on two numbers gives."""
        operation = code & OP_MASK
        is_wide = code & CLASS_MASK == ALU64
        a, b = self.constant(left), self.constant(right)
        value = None
        if a is not None and b is not None:
            value = compute(code, off, a, b, imm)
        if value is not None:
            return self._number(_CONST, value)
        if is_wide and not off and b is not None and operation in (ADD, SUB):
            distance = self._distance[left] + (b if operation == ADD else -b)
            return self._number(self._label_of[left], distance & U64)
        if is_wide and not off and a is not None and operation == ADD:
            return self._number(self._label_of[right], (self._distance[right] + a) & U64)
        n_bytes = 4 if not is_wide and operation != END else 0
        width = imm if operation == END else 0
        return self._named(("op", code, off, width, left, right), n_bytes)

    def _wide(self, slot: int) -> int:
        """What a ld_imm64 gives."""
        if self._opaque[slot] or self._src[slot]:
            return self._named(slot)
        value = self._imm[slot + 1] << 32 | self._imm[slot] & 0xFFFFFFFF
        return self._number(_CONST, value & U64)

    def _load(self, slot: int, code: int, regs: list[int], frame: Frame) -> int:
        """What a load gives."""
        size = _SIZES[code & _SIZE_MASK]
        new = self._named(slot, size if size < 8 else 0)
        at = self.frame_off(regs[self._src[slot]])
        if at is None or self._opaque[slot]:
            return new
        place = at + self._off[slot], size
        if not self._is_private(*place):
            return new
        return frame.setdefault(place, new)

    def _is_private(self, at: int, size: int) -> bool:
        """Whether such bytes are all of the frame, and the kernel does not hold them."""
        if not -_FRAME_BYTES <= at <= -size:
            return False
        return not self._held >> at + _FRAME_BYTES & ((1 << size) - 1)

    def _store(self, slot: int, code: int, regs: list[int], frame: Frame) -> None:
        """What a store, an atomic operation or a call leaves known of the frame."""
        mask = self._touches.get(slot, 0)
        at = None
        if code & CLASS_MASK in (_ST, _STX):
            at = self.frame_off(regs[self._dst[slot]])
        if at is None and not mask:
            return
        size = _SIZES[code & _SIZE_MASK]
        if at is not None:
            at += self._off[slot]
            low = max(at + _FRAME_BYTES, 0)
            mask |= ((1 << max(at + size + _FRAME_BYTES - low, 0)) - 1) << low
        for place in [
            place for place in frame if mask >> place[0] + _FRAME_BYTES & ((1 << place[1]) - 1)
        ]:
            del frame[place]
        if at is None or code & _MODE != _MEM or self._opaque[slot]:
            return
        if not self._is_private(at, size):
            return
        if code & CLASS_MASK == _STX:
            value = regs[self._src[slot]]
        else:
            value = self._number(_CONST, self._imm[slot] & U64)
        frame[at, size] = self._cut(size, value)


def _goals(blocks: Blocks, subprog: int, first: int, stop: int) -> list[list[int]]:
    """Where control goes from each block of a subprog."""
    indirect = blocks.indirect.get(subprog, [])
    out: list[list[int]] = []
    for block, falls, jump, goes in zip(
        range(first, stop),
        blocks.falls[first:stop].tolist(),
        blocks.jump[first:stop].tolist(),
        blocks.is_indirect[first:stop].tolist(),
        strict=True,
    ):
        goals = [block + 1] if falls else []
        goals += [jump] if jump != LOST else []
        goals += indirect if goes else []
        out.append([goal for goal in goals if first <= goal < stop])
    return out
