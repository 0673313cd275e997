"""Where addresses in a stack frame go, and how far below R10 they reach."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.facts.helpers import helpers_where
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Insns, Mask

from .blocks import Blocks

_DEEPEST: Final = 512

_MOV64_REG, _ADD64_IMM, _SUB64_IMM = 0xBF, 0x07, 0x17
_LDX_DW, _STX_DW = 0x79, 0x7B
_ALU, _ALU64 = 0x04, 0x07
_LOAD_ACQUIRE, _STORE_RELEASE, _DW = 0x100, 0x110, 0x18
_FP: Final = int(isa.R10)
_HELPER, _SUBPROG = int(isa.PseudoCall.HELPER), int(isa.PseudoCall.SUBPROG)
_CALLBACKS: Final = helpers_where(lambda proto: proto.callback)

Pointers = dict[int, int]
"""Registers that point into the frame, each with the lowest byte that it may point at."""


def reach(view: CodeView, blocks: Blocks) -> list[tuple[int, bool]]:
    """How many bytes below R10 each subprog reaches, and whether that is certain.

    Addresses are followed through moves, additions of constants, and memory:
    what is loaded, once an address was stored anywhere, may be the lowest that
    was stored. Helpers go upwards from the address that they are given.
    """
    return [_Frame(view, blocks, m).depth() for m in range(len(view.starts))]


class _UnclearError(Exception):
    """The frame cannot be understood."""


class _Frame:
    """One subprog's frame: the lowest byte touched, and the lowest address in memory, so far."""

    def __init__(self, view: CodeView, blocks: Blocks, subprog: int) -> None:
        self.view = view
        self.blocks = blocks
        # Blocks are in program order, and so are those of one subprog.
        self.first = int(np.searchsorted(blocks.subprog, subprog))
        self.stop = int(np.searchsorted(blocks.subprog, subprog, "right"))
        self.lowest = 0
        self.stored: int | None = None

    def depth(self) -> tuple[int, bool]:
        if self.first == self.stop:
            return 0, True
        start, last = int(self.blocks.start[self.first]), int(self.blocks.last[self.stop - 1])
        insns = self.view.insns[start : last + 1]
        if not (isa.reads(insns) >> _FP & 1).any():
            return 0, True
        self._decode(insns, self.view.node[start : last + 1] < 0)
        try:
            before = self._run()
            while before != self.stored:
                before = self.stored
                self._run()
        except _UnclearError:
            return -self.lowest, False
        return -self.lowest, True

    def _decode(self, insns: Insns, is_second: Mask) -> None:
        """Take what matters of the subprog apart, once: a block may be run several times."""
        blocks = self.blocks
        writes = np.where(is_second, 0, isa.writes(insns))
        at = np.flatnonzero(_matters(insns, writes))
        starts = blocks.start[self.first : self.stop] - blocks.start[self.first]
        self.starts: list[int] = [*np.searchsorted(at, starts).tolist(), at.size]
        some = insns[at]
        self.columns = (
            some["code"].tolist(),
            isa.dst(some).tolist(),
            isa.src(some).tolist(),
            some["off"].tolist(),
            some["imm"].tolist(),
            writes[at].tolist(),
        )
        self.after = [
            [goal for goal in (block + 1 if falls else -1, jump) if self.first <= goal < self.stop]
            for block, falls, jump in zip(
                range(self.first, self.stop),
                blocks.falls[self.first : self.stop].tolist(),
                blocks.jump[self.first : self.stop].tolist(),
                strict=True,
            )
        ]
        for block in (np.flatnonzero(blocks.is_indirect[self.first : self.stop])).tolist():
            self.after[block] += blocks.indirect.get(int(blocks.subprog[self.first]), [])

    def _run(self) -> int | None:
        """Follow all blocks to a fixpoint; gives what had been stored when it began."""
        stored = self.stored
        entry = self.first
        into: dict[int, Pointers] = {entry: {_FP: 0}}
        todo = [entry]
        while todo:
            block = todo.pop()
            out = self._block(block, into[block])
            for goal in self.after[block - self.first]:
                known = into.get(goal)
                if known == out:
                    continue
                merged = out if known is None else _merged(known, out)
                if merged != known:
                    into[goal] = merged
                    todo.append(goal)
        return stored

    def _block(self, block: int, pointers: Pointers) -> Pointers:
        at = block - self.first
        begin, end = self.starts[at], self.starts[at + 1]
        if begin == end:
            return pointers
        pointers = pointers.copy()
        for fields in zip(*(column[begin:end] for column in self.columns), strict=True):
            self._step(pointers, *fields)
        return pointers

    def _step(
        self, pointers: Pointers, code: int, dst: int, src: int, off: int, imm: int, writes: int
    ) -> None:
        new = None
        kind = code & 7
        if code == _MOV64_REG and off == 0:
            new = pointers.get(src)
        elif code in (_ADD64_IMM, _SUB64_IMM):
            new = pointers.get(dst)
            if new is not None:
                new = self._checked(new + (imm if code == _ADD64_IMM else -imm))
        elif kind == _ALU64 and (dst in pointers or (code & 8 and src in pointers)):
            raise _UnclearError
        elif kind in (1, 2, 3):
            new = self._access(pointers, code, dst, src, off, imm)
        elif code == isa.CALL:
            self._call(pointers, src, imm)
        for register in [r for r in pointers if writes >> r & 1]:
            del pointers[register]
        if new is not None:
            pointers[dst] = new

    def _access(
        self, pointers: Pointers, code: int, dst: int, src: int, off: int, imm: int
    ) -> int | None:
        """A load or store; the lowest address that it may load into the destination."""
        is_atomic = code & 0xE7 in (0xC3, 0xE3)
        loads = code & 7 == 1 or (is_atomic and imm == _LOAD_ACQUIRE)
        base = pointers.get(src if loads else dst)
        if base is not None:
            self._checked(base + off)
        if loads:
            return self.stored if code & _DW == _DW else None
        if code & 7 == 3 and src in pointers:
            if is_atomic and imm != _STORE_RELEASE:
                raise _UnclearError
            low = pointers[src]
            self.stored = low if self.stored is None else min(low, self.stored)
        elif is_atomic and imm & 1 and self.stored is not None:
            raise _UnclearError
        return None

    def _call(self, pointers: Pointers, src: int, imm: int) -> None:
        given = [low for register, low in pointers.items() if 1 << register & isa.ARGS]
        if given and (src == _SUBPROG or (src == _HELPER and imm in _CALLBACKS)):
            raise _UnclearError
        for low in given:
            self._checked(low)

    def _checked(self, low: int) -> int:
        """Note that somebody points there."""
        if low < -_DEEPEST:
            raise _UnclearError
        self.lowest = min(self.lowest, low)
        return low


def _matters(insns: Insns, writes: NDArray[np.uint16]) -> Mask:
    """(n,) instructions that deal with registers that point into the frame somewhere.

    That is told without regard to order: all registers to which R10 is ever moved, directly or
    not, and where one of them is ever stored, all that 8 bytes are ever loaded into.
    """
    code = np.ascontiguousarray(insns["code"])
    dst, src = np.uint16(1) << isa.dst(insns), np.uint16(1) << isa.src(insns)
    is_move, is_store, is_atomic = code == _MOV64_REG, code & 7 == 3, isa.is_atomic(insns)
    is_load = ((code & 7 == 1) | is_atomic) & (code & _DW == _DW)
    pointing, before, is_stored = np.uint16(1 << _FP), np.uint16(0), False
    while pointing != before:
        before = pointing
        from_one = src & pointing != 0
        is_stored = bool((from_one & is_store).any())
        found = from_one & is_move | is_load if is_stored else from_one & is_move
        pointing |= np.bitwise_or.reduce(dst[found], initial=np.uint16(0))
    out: Mask = (writes | dst | src) & pointing != 0
    # What an atomic operation fetches may be an address that was stored before.
    return out | is_atomic if is_stored else out


def _merged(one: Pointers, other: Pointers) -> Pointers:
    """What either says, and the lower of both."""
    out = dict(one)
    for register, low in other.items():
        out[register] = min(low, out.get(register, low))
    return out
