"""One function's instructions, as far as they matter for addresses in stack frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.facts.helpers import helper_args
from bpfpatch.patch import CodeView
from bpfpatch.program.types import Insns, Mask, Slots

from .blocks import Blocks

_FP: Final = int(isa.R10)
_MOV64_REG, _ADD64_REG = 0xBF, 0x0F
_LDX, _STX, _DW = 1, 3, 0x18

Row = tuple[bool, int, int, int, int, int, int, int, int]
"""Whether it does more than write its destination, slot, code, dst, src, off, imm, registers that
it writes, and those of R1 to R5 that it takes, if it is a call."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameCode:
    """The instructions of one subprog, by block.

    Attributes:
        first: number of its first block.
        rows: the instructions that matter.
        starts: by block, counted from the first, index of its first row; and the end.
        after: by block where control goes from it, and whether by a jump.
        ends: by block (code, dst, imm) of the conditional jump that it ends in, or None.
    """

    first: int
    rows: list[Row]
    starts: list[int]
    after: list[list[tuple[int, bool]]]
    ends: list[tuple[int, int, int] | None]

    @classmethod
    def of(
        cls, view: CodeView, blocks: Blocks, subprog: int, args: int, *, tracks: bool
    ) -> Self | None:
        """Take a subprog apart, once: a block may be run several times.

        Args:
            view: the code.
            blocks: its blocks.
            subprog: index into the view's ``starts``.
            args: the arguments that are addresses in a frame, as a mask of registers.
            tracks: whether all that writes registers matters.

        Returns:
            None for one that deals with no frame.
        """
        # Blocks are in program order, and so are those of one subprog.
        first = int(np.searchsorted(blocks.subprog, subprog))
        stop = int(np.searchsorted(blocks.subprog, subprog, "right"))
        if first == stop:
            return None
        start, last = int(blocks.start[first]), int(blocks.last[stop - 1])
        insns = view.insns[start : last + 1]
        if not args and not (isa.reads(insns) >> _FP & 1).any():
            return None
        is_second = view.node[start : last + 1] < 0
        writes = np.where(is_second, 0, isa.writes(insns))
        matters = _matters(insns, writes, args)
        if tracks:
            matters |= writes != 0
        at = np.flatnonzero(matters & ~is_second).astype(np.int32)
        starts = blocks.start[first:stop] - start
        return cls(
            first=first,
            rows=_rows(insns, at, start, writes, is_odd=tracks),
            starts=[*np.searchsorted(at, starts).tolist(), at.size],
            after=_goals(blocks, first, stop),
            ends=_ends(insns[blocks.last[first:stop] - start]),
        )


def _rows(
    insns: Insns, at: Slots, start: int, writes: NDArray[np.uint16], *, is_odd: bool
) -> list[Row]:
    some, wrote = insns[at], writes[at]
    is_call = isa.is_helper_call(some)
    taken = np.full(at.size, isa.ARGS, np.uint16)
    taken[is_call] = helper_args(some[is_call])
    dst = isa.dst(some)
    odd = (wrote & ~(np.uint16(1) << dst) != 0) | (some["code"] == isa.CALL) | is_odd
    return list(
        zip(
            odd.tolist(),
            (at + start).tolist(),
            some["code"].tolist(),
            dst.tolist(),
            isa.src(some).tolist(),
            some["off"].tolist(),
            some["imm"].tolist(),
            wrote.tolist(),
            taken.tolist(),
            strict=True,
        )
    )


def _goals(blocks: Blocks, first: int, stop: int) -> list[list[tuple[int, bool]]]:
    after = [
        [
            (goal, way)
            for goal, way in ((block + 1 if falls else -1, False), (jump, True))
            if first <= goal < stop
        ]
        for block, falls, jump in zip(
            range(first, stop),
            blocks.falls[first:stop].tolist(),
            blocks.jump[first:stop].tolist(),
            strict=True,
        )
    ]
    indirect = blocks.indirect.get(int(blocks.subprog[first]), [])
    for block in np.flatnonzero(blocks.is_indirect[first:stop]).tolist():
        after[block] += [(goal, True) for goal in indirect]
    return after


def _ends(insns: Insns) -> list[tuple[int, int, int] | None]:
    is_known = isa.is_cond_jump(insns) & ~isa.is_may_goto(insns)
    return [
        (code, dst, imm) if known else None
        for code, dst, imm, known in zip(
            insns["code"].tolist(),
            isa.dst(insns).tolist(),
            insns["imm"].tolist(),
            is_known.tolist(),
            strict=True,
        )
    ]


def _matters(insns: Insns, writes: NDArray[np.uint16], args: int) -> Mask:
    """(n,) instructions that deal with registers that point into a frame somewhere.

    That is told without regard to order: all registers to which an address is ever moved,
    directly or not, and where one of them is ever stored, all that 8 bytes are ever loaded into.
    """
    code = np.ascontiguousarray(insns["code"])
    dst, src = np.uint16(1) << isa.dst(insns), np.uint16(1) << isa.src(insns)
    is_move = (code == _MOV64_REG) | (code == _ADD64_REG)
    is_store = code & 7 == _STX
    is_load = ((code & 7 == _LDX) | isa.is_atomic(insns)) & (code & _DW == _DW)
    pointing, before, is_stored = np.uint16(1 << _FP | args), np.uint16(0), bool(args)
    while pointing != before:
        before = pointing
        from_one = src & pointing != 0
        is_stored = is_stored or bool((from_one & is_store).any())
        found = from_one & is_move | is_load if is_stored else from_one & is_move
        pointing |= np.bitwise_or.reduce(dst[found], initial=np.uint16(0))
    out: Mask = (writes | dst | src) & pointing != 0
    return out
