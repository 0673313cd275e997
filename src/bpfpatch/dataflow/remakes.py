"""Registers whose value one instruction can make again."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final, Literal

import numpy as np

from bpfpatch import isa
from bpfpatch.isa.semantics import ALU, ALU64, CLASS_MASK, OP_MASK, SRC_X, U64, compute
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Mask

from .blocks import Blocks

Recipe = tuple[Literal["number", "frame", "load"], int]
"""How to make a value: a number of unsigned 64 bits, R10 and so many bytes, or the ld_imm64 that
stands at a slot."""
Recipes = dict[int, Recipe]
"""By register."""

_Row = tuple[int, int, int, int, int, int, int]
_MOV, _END = 0xB0, 0xD0
_MOV64_REG, _MOV32_REG = 0xBF, 0xBC
_ADD64_IMM: Final = 0x07
_MOST: Final = 512


class Remakes:
    """What registers hold that can be made again, in the functions that are asked about.

    Args:
        view: the code.
        blocks: its blocks.
        opaque: (n,) slots whose immediate is not known before loading.
        copyable: (n,) slots of ld_imm64 that do the same wherever they stand.
    """

    def __init__(self, view: CodeView, blocks: Blocks, opaque: Mask, copyable: Mask) -> None:
        self._view = view
        self._blocks = blocks
        self._opaque = opaque
        self._copyable = copyable
        self._into: dict[int, dict[int, Recipes]] = {}

    def before(self, slot: int) -> Recipes:
        """What is known in front of an instruction."""
        blocks = self._blocks
        block = int(np.searchsorted(blocks.start, slot, "right")) - 1
        subprog = int(blocks.subprog[block])
        if subprog not in self._into:
            self._into[subprog] = self._solve(subprog)
        found = self._into[subprog].get(block)
        return {} if found is None else self._run(found, self._rows(int(blocks.start[block]), slot))

    def _solve(self, subprog: int) -> dict[int, Recipes]:
        """What is known in front of each block that is reached."""
        blocks = self._blocks
        first = int(np.searchsorted(blocks.subprog, subprog))
        stop = int(np.searchsorted(blocks.subprog, subprog, "right"))
        bounds = [*blocks.start[first:stop].tolist(), int(blocks.last[stop - 1]) + 1]
        falls, jump = blocks.falls[first:stop].tolist(), blocks.jump[first:stop].tolist()
        goes = blocks.is_indirect[first:stop].tolist()
        rows = self._rows(bounds[0], bounds[-1])
        begins = np.searchsorted([row[0] for row in rows], bounds).tolist()
        into: dict[int, Recipes] = {first: {}}
        todo = [first]
        while todo:
            block = heappop(todo)
            at = block - first
            out = self._run(into[block], rows[begins[at] : begins[at + 1]])
            goals = [block + 1 if falls[at] else -1, jump[at]]
            goals += blocks.indirect.get(subprog, []) if goes[at] else []
            for goal in goals:
                if not first <= goal < stop:
                    continue
                known = into.get(goal)
                new = out
                if known is not None:
                    new = {r: how for r, how in known.items() if out.get(r) == how}
                    if len(new) == len(known):
                        continue
                into[goal] = new
                if goal not in todo:
                    heappush(todo, goal)
        return into

    def _rows(self, start: int, stop: int) -> list[_Row]:
        """What writes registers, from one slot to another."""
        insns = self._view.insns[start:stop]
        writes = isa.writes(insns)
        writes[self._view.node[start:stop] < 0] = 0
        at = np.flatnonzero(writes)
        some = insns[at]
        return list(
            zip(
                (at + start).tolist(),
                some["code"].tolist(),
                isa.dst(some).tolist(),
                isa.src(some).tolist(),
                some["off"].tolist(),
                some["imm"].tolist(),
                writes[at].tolist(),
                strict=True,
            )
        )

    def _run(self, known: Recipes, rows: list[_Row]) -> Recipes:
        """From in front of some instructions of a block to after them."""
        known = known.copy()
        for slot, code, dst, src, off, imm, wrote in rows:
            new = self._made(known, slot, code, dst, src, off, imm)
            if known:
                for register in [r for r in known if wrote >> r & 1]:
                    del known[register]
            if new is not None:
                known[dst] = new
        return known

    def _made(
        self, known: Recipes, slot: int, code: int, dst: int, src: int, off: int, imm: int
    ) -> Recipe | None:
        """What an instruction leaves in its destination."""
        if code == _MOV64_REG and off == 0:
            return ("frame", 0) if src == isa.R10 else known.get(src)
        if code == isa.LD_IMM64:
            return self._loaded(slot, src, imm)
        if self._opaque[slot] or code & CLASS_MASK not in (ALU, ALU64):
            return None
        left = known.get(dst)
        if code == _ADD64_IMM and left is not None and left[0] == "frame":
            return ("frame", left[1] + imm) if -_MOST <= left[1] + imm <= _MOST else None
        right: Recipe | None = ("number", imm & U64)
        if code & OP_MASK == _END:
            right = ("number", 0)
        elif code & SRC_X:
            right = known.get(src)
        if code & OP_MASK == _MOV:
            left = ("number", 0)
        value = None
        if left is not None and right is not None and left[0] == right[0] == "number":
            value = compute(code, off, left[1], right[1], imm)
        return None if value is None else ("number", value)

    def _loaded(self, slot: int, src: int, imm: int) -> Recipe | None:
        """What a ld_imm64 leaves."""
        if self._copyable[slot]:
            return "load", slot
        if self._opaque[slot] or src:
            return None
        upper = int(self._view.insns["imm"][slot + 1])
        return "number", (upper << 32 | imm & 0xFFFFFFFF) & U64


def remaking(view: CodeView, register: int, recipe: Recipe) -> isa.Insns:
    """The instructions that make a value again."""
    how, value = recipe
    if how == "load":
        found: isa.Insns = view.insns[value : value + 2]
        again = found.copy()
        again["regs"][0] = (again["regs"][0] & 0xF0) | register
        return again
    if how == "frame":
        move = isa.mov(register, isa.R10)
        return move if not value else np.concatenate([move, isa.alu("+=", register, value)])
    if value < 1 << 31 or value >= (1 << 64) - (1 << 31):
        return isa.mov(register, value - (1 << 64) if value >> 63 else value)
    # `w1 = -1` would be shorter, but a program of cpu v1 or v2 is to stay one.
    return isa.ld_imm64(register, value)
