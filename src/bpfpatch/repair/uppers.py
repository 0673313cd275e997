"""Registers whose upper 32 bits are certainly 0."""

from __future__ import annotations

from typing import Final

from bpfpatch import isa

from .site import SiteCode
from .webs import successors

_ALL: Final = (1 << 11) - 1
_MOV_IMM, _MOV_REG, _AND_IMM, _RSH_IMM = 0xB7, 0xBF, 0x57, 0x77
_CALL: Final = 0x85


def zero_uppers(code: SiteCode, subprog: int) -> dict[int, int]:
    """By slot of a subprog, a mask of registers whose upper half is 0 in front of it.

    A forward flow: what holds on all paths. A load of 4 bytes or less gives 0 there, also of a
    field that the kernel makes a pointer of: such a program sees 32 bits of it.
    """
    begin, end = code.span(subprog)
    insns = code.view.insns[begin:end]
    narrow = isa.defines_32(insns)
    writes = isa.writes(insns).tolist()
    first, last = code.block(begin), code.block(end - 1)
    into = dict.fromkeys(range(first, last + 1), _ALL)
    into[first] = 0
    out: dict[int, int] = {}
    todo = [first]
    seen = {first}
    while todo:
        block = todo.pop()
        now = into[block]
        slot, stop = int(code.blocks.start[block]), int(code.blocks.last[block])
        while slot <= stop:
            out[slot] = now
            now = _after(code, slot, now, bool(narrow[slot - begin]), writes[slot - begin])
            slot += 2 if slot + 1 < len(code.view) and code.view.node[slot + 1] < 0 else 1
        for goal in successors(code, block):
            if not first <= goal <= last:
                continue
            met = into[goal] & now
            if met != into[goal] or goal not in seen:
                into[goal] = met
                seen.add(goal)
                todo.append(goal)
    return out


def _after(code: SiteCode, slot: int, now: int, is_narrow: bool, writes: int) -> int:
    fields = code.fields(slot)
    if fields.code == _CALL:
        return now & ~0b111111
    bit = 1 << fields.dst
    is_zero = (
        (is_narrow and bool(writes & bit))
        or (fields.code == _MOV_REG and fields.off == 0 and bool(now >> fields.src & 1))
        or (fields.code in (_MOV_IMM, _AND_IMM) and fields.imm >= 0)
        or (fields.code == _RSH_IMM and fields.imm >= 32)
        or (fields.code in (_AND_IMM, _RSH_IMM) and bool(now & bit))
    )
    return now & ~writes | (bit if is_zero else 0)
