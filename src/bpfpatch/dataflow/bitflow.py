"""Known bits of operands in front of every instruction of a program."""

from __future__ import annotations

from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.isa.semantics import ALU, ALU64, CLASS_MASK, JMP, JMP32, OP_MASK, SRC_X, U64
from bpfpatch.patch import CodeView
from bpfpatch.program.types import LOST, Mask, Slots

from .blocks import Blocks
from .knownbits import (
    ANYTHING,
    ORIGIN_CTX,
    ORIGIN_STACK,
    UNKNOWN,
    Traced,
    alu_bits,
    joined,
    refined,
)

_LDX, _MODE_MASK, _SIZE_MASK = 0x01, 0xE0, 0x18
_MEM: Final = 0x60
_WIDTHS: Final = {0x00: 32, 0x08: 16, 0x10: 8, 0x18: 64}
_MOV: Final = 0xB0
_FRAME: Final[Traced] = (0, U64, ORIGIN_STACK)
_RESULT: Final[Traced] = (0, U64, 0)
"""What the kernel gives: no address of a context or a frame."""
_N_REGS: Final = 16
"""As many as a register field can name."""
_MOST_VISITS: Final = 6
"""How often a block is looked at before what changes in it counts as unknown."""

State = list[Traced]


class BitFlow:
    """What is known in front of each instruction of the registers that it names.

    Linear: a block is looked at a few times, and then only while registers become unknown.
    Nothing is known where functions are entered, of what calls give, nor of memory. What a
    relocation or a CO-RE record fills in or may change is unknown. A load of 32 bits through an
    address that may be the context's may give a whole pointer, as one of ``data`` does.

    Args:
        view: the code.
        blocks: its blocks.
        opaque: (n,) slots of which a loader may change something.
        pads: slots, starts of blocks, to which control may come from anywhere in their subprog.
        branches: whether what comparisons say counts. The verifier may know less than these: to
            it a pointer that equals 0 stays a pointer.
        subprogs: (m,) those of the view's to look at; by default all.

    Attributes:
        dst: n triples, see `bpfpatch.dataflow.knownbits`, of the register in the ``dst`` field
            before the instruction; `ANYTHING` in code that nothing leads to.
        src: the same of the register in the ``src`` field.
    """

    __slots__ = (
        "_blocks",
        "_branches",
        "_columns",
        "_ends",
        "_into",
        "_todo",
        "_visits",
        "dst",
        "src",
    )

    def __init__(
        self,
        view: CodeView,
        blocks: Blocks,
        opaque: Mask,
        pads: Slots,
        *,
        branches: bool = True,
        subprogs: Mask | None = None,
    ) -> None:
        insns = view.insns
        self._blocks, self._branches = blocks, branches
        self.dst: list[Traced] = [ANYTHING] * len(view)
        self.src: list[Traced] = [ANYTHING] * len(view)
        self._columns: tuple[list[int], ...] = (
            insns["code"].tolist(),
            isa.dst(insns).tolist(),
            isa.src(insns).tolist(),
            insns["off"].tolist(),
            insns["imm"].tolist(),
            isa.writes(insns).tolist(),
            (opaque | (view.node < 0)).tolist(),
        )
        self._ends: list[int] = np.append(blocks.start[1:], len(view)).tolist()
        self._into: list[State | None] = [None] * len(blocks)
        self._visits = [0] * len(blocks)
        self._todo: set[int] = set()
        entered = np.concatenate([view.starts, pads])
        if subprogs is not None:
            entered = entered[subprogs[view.subprog_of(entered)]]
        self._solve(entered)

    def _solve(self, entered: Slots) -> None:
        blocks, starts = self._blocks, self._blocks.start
        for block in np.searchsorted(starts, entered).tolist():
            self._enter(block, [_FRAME if reg == isa.R10 else ANYTHING for reg in range(_N_REGS)])
        falls, jump, start = blocks.falls.tolist(), blocks.jump.tolist(), starts.tolist()
        owner, is_gotox = blocks.subprog.tolist(), blocks.is_indirect.tolist()
        last = blocks.last.tolist()
        while self._todo:
            # In order of the code, most edges are forward: all that leads to a block comes first.
            for block in sorted(self._todo):
                self._todo.discard(block)
                into = self._into[block]
                assert into is not None
                state = list(into)
                self._run(start[block], self._ends[block], state)
                here = last[block]
                if falls[block] and block + 1 < len(falls):
                    self._enter(block + 1, self._side(here, state, is_taken=False))
                if jump[block] != LOST:
                    self._enter(jump[block], self._side(here, state, is_taken=True))
                for target in blocks.indirect.get(owner[block], ()) if is_gotox[block] else ():
                    self._enter(target, state)

    def _enter(self, block: int, state: State) -> None:
        before = self._into[block]
        if before is None:
            self._into[block] = list(state)
            self._todo.add(block)
            return
        if before == state:
            return
        after = [
            one if one == other else joined(one, other)
            for one, other in zip(before, state, strict=True)
        ]
        if after == before:
            return
        self._visits[block] += 1
        if self._visits[block] > _MOST_VISITS:
            after = [
                new if new[:2] == old[:2] else (*UNKNOWN, new[2])
                for new, old in zip(after, before, strict=True)
            ]
        self._into[block] = after
        self._todo.add(block)

    def _side(self, slot: int, state: State, *, is_taken: bool) -> State:
        """The state on one side of a block's last instruction."""
        codes, dsts, srcs, _, imms, _, opaque = self._columns
        code = codes[slot]
        if not self._branches or code & CLASS_MASK not in (JMP, JMP32) or opaque[slot]:
            return state
        right = imms[slot] & U64
        if code & SRC_X:
            ones, unknown, _ = state[srcs[slot]]
            if unknown:
                return state
            right = ones
        dst = dsts[slot]
        ones, unknown, origin = state[dst]
        found = refined(code, (ones, unknown), right, is_taken=is_taken)
        if found == (ones, unknown):
            return state
        out = list(state)
        out[dst] = (*found, origin)
        return out

    def _run(self, slot: int, end: int, state: State) -> None:
        """Run a block's instructions, and note what is known of their operands."""
        codes, dsts, srcs, offs, imms, writes, opaque = self._columns
        before_dst, before_src = self.dst, self.src
        while slot < end:
            code, dst, src = codes[slot], dsts[slot], srcs[slot]
            left, right = state[dst], state[src]
            before_dst[slot], before_src[slot] = left, right
            kind = code & CLASS_MASK
            if kind in (ALU, ALU64):
                if opaque[slot]:
                    state[dst] = (*UNKNOWN, left[2] | right[2])
                else:
                    state[dst] = _computed(code, offs[slot], imms[slot], left, right)
            elif code == isa.LD_IMM64:
                is_number = src == 0 and not opaque[slot]
                number = (imms[slot + 1] << 32 | imms[slot] & 0xFFFFFFFF) & U64 if is_number else 0
                state[dst] = (number, 0 if is_number else U64, 0)
                slot += 1
            elif kind == _LDX:
                state[dst] = ANYTHING if opaque[slot] else _loaded(code, right)
            elif writes[slot]:
                given = _RESULT if code == isa.CALL and src != isa.PseudoCall.SUBPROG else ANYTHING
                for register in range(_N_REGS):
                    if writes[slot] >> register & 1:
                        state[register] = given
            slot += 1


def _computed(code: int, slot_off: int, imm: int, left: Traced, right: Traced) -> Traced:
    if not code & SRC_X:
        right = (imm & U64, 0, 0)
    ones, unknown = alu_bits(code, slot_off, imm, left[:2], right[:2])
    return ones, unknown, right[2] | (0 if code & OP_MASK == _MOV else left[2])


def _loaded(code: int, base: Traced) -> Traced:
    """What a load gives.

    Source: linux v6.18, kernel/bpf/verifier.c, check_mem_access(): only a context's field, or a
    spill, gives a pointer.
    """
    width = _WIDTHS[code & _SIZE_MASK]
    origin = base[2]
    if width < 64 and code & _MODE_MASK == _MEM and (width < 32 or not origin & ORIGIN_CTX):
        return 0, (1 << width) - 1, 0
    # A pointer to the context or to a frame can only be spilled to a frame.
    return 0, U64, ORIGIN_CTX | ORIGIN_STACK if origin and width == 64 else 0
