"""The shape of one function: its blocks, the runs that they form, and its loops.

A function is what can be reached from its first instruction without a call.
Its blocks are kept in the order of their slots, which is the order that
compilers lay out: loops are runs of blocks, and most control falls through.

A *segment* is a block that something jumps to, and the blocks after it that
are reached by falling through only. A *loop* is a range of segments with a
jump from its last to its first; loops are nested or apart, never crossed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from bpfpatch.isa import Kind

from .code import InterpCode

_MAX_LOOP_DEPTH: Final = 10
"""CPython compiles at most 20 nested loops; what is deeper goes through an outer loop's head."""
_MAX_CHAIN: Final = 20
"""Conditional jumps in one segment: each may nest the rest of it in an ``if``."""
_MAX_STRAIGHT: Final = 400
"""Instructions in one block, so that a budget is noticed early."""


@dataclass(slots=True)
class Block:
    """Instructions that run one after the other.

    Attributes:
        start: first slot.
        end: slot after the last.
        slots: of its instructions; second slots are left out.
        falls_to: segment or block after it, as a slot, or None.
        jumps_to: target of the jump at its end, as a slot, or None.
        live: registers that may be read after it, a bitmask.
    """

    start: int
    end: int = 0
    slots: list[int] = field(default_factory=list)
    falls_to: int | None = None
    jumps_to: int | None = None
    live: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """Segments ``head`` to ``last``, with a jump back to ``head``."""

    head: int
    last: int


@dataclass(slots=True)
class Function:
    """One function's shape.

    Attributes:
        entry: slot of its first instruction.
        segments: lists of blocks, by slot.
        index: segment number by the slot that it starts at.
        loops: by (head, -last): an outer one comes before what is in it.
        n_insns: how many instructions it has.
        has_gotox: whether it has an indirect jump.
    """

    entry: int
    segments: list[list[Block]]
    index: dict[int, int]
    loops: list[Loop]
    n_insns: int
    has_gotox: bool

    def blocks(self) -> Iterable[Block]:
        """All blocks, by slot."""
        for segment in self.segments:
            yield from segment


def read_function(code: InterpCode, entry: int) -> Function:
    """Find a function's shape. Targets that do not exist stay in ``jumps_to``."""
    blocks, has_gotox = _blocks(code, entry)
    segments = _segments(blocks, entry, code.jump_table_targets if has_gotox else [])
    index = {segment[0].start: number for number, segment in enumerate(segments)}
    loops = [] if has_gotox else _loops(segments, index)
    n_insns = sum(len(block.slots) for block in blocks)
    function = Function(entry, segments, index, loops, n_insns, has_gotox)
    _find_live(code, blocks)
    return function


def _blocks(code: InterpCode, entry: int) -> tuple[list[Block], bool]:
    """All that can be reached, cut where control joins or parts."""
    n_slots = len(code)
    leaders = {entry}
    pending = [entry]
    seen = bytearray(n_slots)
    has_gotox = False
    while pending:
        slot = pending.pop()
        while slot < n_slots and not seen[slot]:
            seen[slot] = 1
            opcode = code.opcodes[slot]
            after, target = code.successors(slot)
            if opcode is not None and opcode.name == "gotox" and not has_gotox:
                has_gotox = True
                leaders.update(code.jump_table_targets)
                pending.extend(code.jump_table_targets)
            if target is not None and 0 <= target < n_slots and target not in leaders:
                leaders.add(target)
                pending.append(target)
            if after is None:
                break
            if target is not None:
                leaders.add(after)
            slot = after
    return _cut(code, seen, leaders), has_gotox


def _cut(code: InterpCode, seen: bytearray, leaders: set[int]) -> list[Block]:
    blocks: list[Block] = []
    n_slots = len(code)
    block: Block | None = None
    for slot in range(n_slots):
        if not seen[slot]:
            continue
        if block is None or slot in leaders or len(block.slots) >= _MAX_STRAIGHT:
            _close(block, slot)
            block = Block(slot)
            blocks.append(block)
        block.slots.append(slot)
        after, target = code.successors(slot)
        opcode = code.opcodes[slot]
        block.end = slot + 1 if after is None else after
        # A call ends a block, too, so that what is left of the budget is exact in the callee.
        if after is None or target is not None or opcode is None or opcode.kind is Kind.CALL:
            block.falls_to, block.jumps_to = after, target
            block = None
        elif after >= n_slots or not seen[after]:
            block.falls_to = after
            block = None
        elif after != slot + 1 and seen[slot + 1]:
            # Something jumps to the second slot, which is a block of its own.
            block.falls_to = after
            block = None
    return blocks


def _close(block: Block | None, slot: int) -> None:
    if block is not None:
        block.falls_to = slot


def _segments(blocks: list[Block], entry: int, tables: list[int]) -> list[list[Block]]:
    heads = {entry, *tables}
    heads.update(block.jumps_to for block in blocks if block.jumps_to is not None)
    segments: list[list[Block]] = []
    n_conditions = 0
    previous: int | None = None
    for block in blocks:
        if (
            not segments
            or block.start in heads
            or previous != block.start
            or n_conditions >= _MAX_CHAIN
        ):
            segments.append([])
            n_conditions = 0
        segments[-1].append(block)
        n_conditions += block.jumps_to is not None
        previous = block.falls_to
    return segments


def _loops(segments: list[list[Block]], index: dict[int, int]) -> list[Loop]:
    """Ranges with a jump back, made nested where they cross."""
    last: dict[int, int] = {}
    for number, segment in enumerate(segments):
        for block in segment:
            for slot in (block.jumps_to, block.falls_to):
                target = number + 1 if slot is None else index.get(slot, number + 1)
                if target <= number:
                    last[target] = max(last.get(target, 0), number)
    open_loops: list[list[int]] = []
    found: list[list[int]] = []
    for head in sorted(last):
        end = last[head]
        while open_loops and open_loops[-1][1] < head:
            open_loops.pop()
        if len(open_loops) >= _MAX_LOOP_DEPTH:
            open_loops[-1][1] = max(open_loops[-1][1], end)
        for outer in open_loops:
            outer[1] = max(outer[1], end)
        if len(open_loops) < _MAX_LOOP_DEPTH:
            open_loops.append([head, end])
            found.append(open_loops[-1])
    return [Loop(head, end) for head, end in found]


def _find_live(code: InterpCode, blocks: list[Block]) -> None:
    """Which registers may be read after each block, by going backwards until nothing changes."""
    by_start = {block.start: number for number, block in enumerate(blocks)}
    uses: list[int] = []
    kills: list[int] = []
    sources: list[list[int]] = [[] for _ in blocks]
    for number, block in enumerate(blocks):
        use = kill = 0
        for slot in block.slots:
            use |= code.reads[slot] & ~kill
            kill |= code.writes[slot]
        uses.append(use)
        kills.append(kill)
        for target in (block.falls_to, block.jumps_to):
            if target in by_start:
                sources[by_start[target]].append(number)
    live_in = list(uses)
    pending = list(range(len(blocks)))
    is_queued = bytearray(b"\1" * len(blocks))
    while pending:
        number = pending.pop()
        is_queued[number] = 0
        block = blocks[number]
        live = live_in[number] = uses[number] | (block.live & ~kills[number])
        for source in sources[number]:
            if live & ~blocks[source].live:
                blocks[source].live |= live
                if not is_queued[source]:
                    is_queued[source] = 1
                    pending.append(source)


def live_after(code: InterpCode, block: Block) -> dict[int, int]:
    """Registers that may be read after each call and packet load of a block, by slot."""
    out: dict[int, int] = {}
    live = block.live
    for slot in reversed(block.slots):
        opcode = code.opcodes[slot]
        if opcode is not None and opcode.kind in (Kind.CALL, Kind.PACKET_LOAD):
            out[slot] = live
        live = code.reads[slot] | (live & ~code.writes[slot])
    return out
