"""Webs of a stack slot: stores, and the loads that see what they stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .site import SiteCode

_FP: Final = 10


@dataclass(frozen=True, slots=True)
class Web:
    """Stores that reach the same loads.

    Attributes:
        stores: their slots.
        loads: their slots.
        is_open: whether something else may have written what one of the loads sees, such as a
            part of it.
    """

    stores: tuple[int, ...]
    loads: tuple[int, ...]
    is_open: bool


def web_of(code: SiteCode, slot: int) -> Web:
    """The web of a store to the stack, at a constant distance from R10.

    In plain Python: a store reaches a load if there is a path from one to the other on which no
    store covers all bytes again; the web is what is connected by that.
    """
    access = code.fields(slot)
    low, high = access.off, access.off + access.size
    flow = _Flow(code, code.subprog(slot), low, high)
    stores, loads, is_open = {slot}, set[int](), False
    todo = [slot]
    while todo:
        store = todo.pop()
        for load in flow.loads:
            if store not in flow.seen_by[load]:
                continue
            loads.add(load)
            for other in flow.seen_by[load] - stores:
                stores.add(other)
                todo.append(other)
    for store in stores:
        fields = code.fields(store)
        is_open |= fields.off > low or fields.off + fields.size < high
    return Web(tuple(sorted(stores)), tuple(sorted(loads)), is_open)


class _Flow:
    """Which stores each load of some bytes of a frame sees."""

    def __init__(self, code: SiteCode, subprog: int, low: int, high: int) -> None:
        begin, end = code.span(subprog)
        self.stores: list[int] = []
        self.loads: list[int] = []
        covers: set[int] = set()
        insns = code.view.insns
        for slot in range(begin, end):
            op = int(insns["code"][slot]) & 7
            if op not in (1, 2, 3) or code.view.node[slot] < 0:
                continue
            fields = code.fields(slot)
            base = fields.src if op == 1 else fields.dst
            if base != _FP or fields.off >= high or fields.off + fields.size <= low:
                continue
            (self.loads if op == 1 else self.stores).append(slot)
            if op != 1 and fields.off <= low and fields.off + fields.size >= high:
                covers.add(slot)
        first, last = code.block(begin), code.block(end - 1)
        events: dict[int, list[int]] = {}
        for slot in sorted(self.stores + self.loads):
            events.setdefault(code.block(slot), []).append(slot)
        is_load = set(self.loads)
        into: dict[int, set[int]] = {block: set() for block in range(first, last + 1)}
        self.seen_by: dict[int, set[int]] = {load: set() for load in self.loads}
        todo = list(range(first, last + 1))
        while todo:
            block = todo.pop()
            now = set(into[block])
            for slot in events.get(block, ()):
                if slot in is_load:
                    self.seen_by[slot] |= now
                elif slot in covers:
                    now = {slot}
                else:
                    now.add(slot)
            for goal in successors(code, block):
                if first <= goal <= last and not now <= into[goal]:
                    into[goal] |= now
                    todo.append(goal)


def successors(code: SiteCode, block: int) -> list[int]:
    """Blocks that may run after one."""
    blocks = code.blocks
    out = [block + 1] if blocks.falls[block] else []
    if blocks.jump[block] >= 0:
        out.append(int(blocks.jump[block]))
    if blocks.is_indirect[block]:
        out += blocks.indirect.get(int(blocks.subprog[block]), [])
    return out
