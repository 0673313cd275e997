"""Which registers hold numbers of 32 bits: their upper halves are zero on every path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.dataflow.liveness import defined_registers
from bpfpatch.patch import CodeView
from bpfpatch.program import LOST
from bpfpatch.program.types import Mask

CERTAIN: Final = 16
"""Bit r + CERTAIN: register r is a number, too, and no address loaded from a context's field."""

_ALL: Final = 0x7FF | 0x7FF << CERTAIN
_LOAD32: Final = 0x61
_MOV_IMM, _MOV_REG, _AND_IMM, _AND_REG, _RSH_IMM = 0xB7, 0xBF, 0x57, 0x5F, 0x77
_HALF: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Effects:
    """What instructions do to the knowledge: kept & ``keeps`` | ``sets``, and copies."""

    keeps: list[int]
    sets: list[int]
    copies: dict[int, tuple[int, int, bool]]


def zero_halves(view: CodeView, blocks: Blocks, untidy: Mask | None = None) -> NDArray[np.uint32]:
    """Find the registers whose upper half is zero before each instruction, on every path to it.

    A 32-bit load from a context may give an address, of 64 bits: `CERTAIN` excludes those.

    Args:
        view: the code.
        blocks: its blocks.
        untidy: (n,) moves of 32 bits that will leave the upper half as it comes.

    Returns:
        (n,) masks: bit r for register r, and bit r + `CERTAIN`. In code that nothing leads
        to, all bits.
    """
    effects = _effects(view, untidy)
    n_blocks = len(blocks)
    start, last = blocks.start.tolist(), blocks.last.tolist()
    entry = [_ALL] * n_blocks
    heads = np.searchsorted(blocks.start, view.starts).tolist()
    for head in heads:
        entry[head] = 0
    is_head = set(heads)
    waiting = list(range(n_blocks))[::-1]
    is_waiting = [True] * n_blocks
    while waiting:
        block = waiting.pop()
        is_waiting[block] = False
        known = entry[block]
        for slot in range(start[block], last[block] + 1):
            known = _step(effects, slot, known)
        for after in _successors(blocks, block):
            met = 0 if after in is_head else entry[after] & known
            if met != entry[after]:
                entry[after] = met
                if not is_waiting[after]:
                    is_waiting[after] = True
                    waiting.append(after)
    out = np.zeros(len(view), np.uint32)
    for block in range(n_blocks):
        known = entry[block]
        for slot in range(start[block], last[block] + 1):
            out[slot] = known
            known = _step(effects, slot, known)
    return out


def _step(effects: _Effects, slot: int, known: int) -> int:
    copied = effects.copies.get(slot)
    after = known & effects.keeps[slot] | effects.sets[slot]
    if copied is None:
        return after
    dst, src, also_own = copied
    pair = 1 | 1 << CERTAIN
    bits = known >> src & pair
    if also_own:  # of an and, one operand is enough
        bits |= known >> dst & pair
    return after & ~(pair << dst) | bits << dst


def _successors(blocks: Blocks, block: int) -> list[int]:
    out = [block + 1] if blocks.falls[block] and block + 1 < len(blocks) else []
    if blocks.jump[block] != LOST:
        out.append(int(blocks.jump[block]))
    if blocks.is_indirect[block]:
        out += blocks.indirect.get(int(blocks.subprog[block]), [])
    return out


def _effects(view: CodeView, untidy: Mask | None) -> _Effects:
    insns = view.insns
    code, dst, src = insns["code"], isa.dst(insns), isa.src(insns)
    writes = isa.writes(insns).astype(np.int64)
    sets = np.where(isa.defines_32(insns), defined_registers(insns), 0).astype(np.int64)
    own = np.int64(1) << dst.astype(np.int64)
    is_small = (code == _MOV_IMM) | (code == _AND_IMM)
    is_small &= insns["imm"] >= 0
    is_small |= (code == _RSH_IMM) & (insns["imm"] >= _HALF)
    sets[is_small] = own[is_small]
    if untidy is not None:
        sets[untidy] = 0
    may_be_address = (code == _LOAD32) & (src != isa.R10)
    certain = np.where(may_be_address, 0, sets)
    keeps = ~writes & 0x7FF
    copies = {
        int(slot): (int(dst[slot]), int(src[slot]), int(code[slot]) == _AND_REG)
        for slot in np.flatnonzero(
            ((code == _MOV_REG) & (insns["off"] == 0)) | (code == _AND_REG)
        ).tolist()
    }
    return _Effects(
        (keeps | keeps << CERTAIN).tolist(), (sets | certain << CERTAIN).tolist(), copies
    )
