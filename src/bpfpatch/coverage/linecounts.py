"""How often source lines ran.

A line's count is the sum over the places where control comes to it from another line, as gcov's
is: so a line that was inlined at three places has what its three copies have together, and one
of several blocks (``if (a && b)``) is counted once. A loop that is all on one line counts each
time round.

Compilers mix the instructions of neighbouring lines. Coming back to a line is no second time
where every path leads through it before, in the same round of the same loop, and nothing is done
again that an execution does once: a call, a memory access, a condition or arithmetic, each told
by its column and opcode.

Where code has no line record, that of the code in front of it holds: it is of that line only if
control comes from there.

Source: gcc, gcov.c, accumulate_line_info().
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import islice, pairwise
from operator import or_
from typing import Final, NamedTuple, Self

import numpy as np

from bpfpatch import isa
from bpfpatch.passes.cover import LineRow

from .counts import FunctionCoverage
from .flowgraph import FlowGraph

Line = tuple[str, int]
Counts = dict[Line, int | None]
Operation = tuple[int, int, int]
Numbers = np.ndarray[tuple[int], np.dtype[np.int64]]

_MOST_LOOKED_AT: Final = 64
"""Earlier places of one line that are looked at for one that all paths lead through."""
_MOST_BLOCKS: Final = 1000
"""Of a loop that is all on one line."""
_ALU32: Final = 4
_ALU64: Final = 7
_MOV: Final = 0xB0
_REMADE: Final = (0x00, 0x60, 0x70, 0xC0)
"""Adding a constant, and shifts by one."""
_ORDER: Final = (
    {0x50: 0x10} | dict.fromkeys((0x30, 0xA0, 0xB0), 0x20) | dict.fromkeys((0x70, 0xC0, 0xD0), 0x60)
)
"""Conditions by which stands for them: jne is a jeq turned round, and so on."""


class Done(NamedTuple):
    """What has been done in one execution of a line.

    Attributes:
        all: operations.
        several: those that were done several times in a row, as a macro or a comparison of many
            bytes does: if they are done once more, that says nothing.
    """

    all: frozenset[Operation]
    several: frozenset[Operation]

    def __or__(self, other: Self) -> Self:
        return self._replace(all=self.all | other.all, several=self.several | other.several)

    def is_again(self, other: Self) -> bool:
        """Whether some of what is done only once was done before."""
        again = self.all & other.all
        return bool(again) and bool(again - self.several - other.several)


class LineRun(NamedTuple):
    """Instructions in a row of one line, within one block.

    Attributes:
        start: first slot.
        end: slot after the last.
        file: path of the source file, "" without line info.
        line: number of the line, 0 for none.
        block: index of the block.
        is_loose: whether no record says so but that of the code in front of it, from where
            control does not come alone.
    """

    start: int
    end: int
    file: str
    line: int
    block: int
    is_loose: bool


class LineTable:
    """Line records of an object, and what its instructions do.

    Args:
        rows: by slot.
        insns: (n,) the code.
    """

    def __init__(self, rows: Sequence[LineRow], insns: isa.Insns) -> None:
        self.rows = rows
        self._insns = insns
        self._slots = [row.slot for row in rows]

    def at(self, slot: int, since: int) -> LineRow | None:
        """The record that a slot belongs to: the last one at or before it, but not before since."""
        at = bisect_right(self._slots, slot) - 1
        return self.rows[at] if at >= 0 and self._slots[at] >= since else None

    def within(self, start: int, end: int) -> Sequence[LineRow]:
        """The records at slots from start on, up to end."""
        return self.rows[bisect_left(self._slots, start) : bisect_left(self._slots, end)]

    def runs(self, function: FunctionCoverage) -> list[LineRun]:
        """A function's blocks, cut where another line starts.

        A line record holds until the next one, also from one block into the next.
        """
        out: list[LineRun] = []
        is_led_to = [False] * len(function.blocks)
        for edge in function.edges:
            if edge.goal >= 0 and edge.source != edge.goal - 1:
                is_led_to[edge.goal] = True
        for block, (start, end, _) in enumerate(function.blocks):
            if start == end:
                continue
            first, last = bisect_right(self._slots, start), bisect_left(self._slots, end)
            for one, after in pairwise([start, *self._slots[first:last], end]):
                row = self.at(one, function.start)
                file, line = (row.file, row.line) if row else ("", 0)
                is_loose = is_led_to[block] and row is not None and row.slot < start
                run = LineRun(one, after, file, line, block, is_loose)
                if one > start and out[-1][2:] == run[2:]:
                    run = run._replace(start=out.pop().start)
                out.append(run)
        return out

    def is_jump(self, run: LineRun) -> bool:
        """Whether a run is nothing but a jump."""
        return run.end == run.start + 1 and self._is_jump[run.start]

    @cached_property
    def _is_jump(self) -> list[bool]:
        out: list[bool] = isa.is_uncond_jump(self._insns).tolist()
        return out

    def done(self, start: int, end: int) -> Done:
        """What is done at slots from ``start`` up to ``end``."""
        row = [one for one in self._operations[start:end] if one is not None]
        if len(row) == len(set(row)):
            return Done(frozenset(row), frozenset())
        counts = Counter(row)
        several = frozenset(one for one, count in counts.items() if count > 1)
        return Done(frozenset(counts), several)

    @cached_property
    def _operations(self) -> list[Operation | None]:
        """By slot: column, kind and operand; None for what may be done twice for one purpose."""
        insns = self._insns
        columns = np.array([0, *(row.column for row in self.rows)], np.int64)
        at = np.searchsorted(np.array(self._slots, np.int64), np.arange(len(insns)), side="right")
        kind, operand = _kinds(insns)
        rows = zip(columns[at].tolist(), kind.tolist(), operand.tolist(), strict=True)
        return [one if one[1] else None for one in rows]


def _kinds(insns: isa.Insns) -> tuple[Numbers, Numbers]:
    """What instructions do, 0 for what may be done twice for one purpose; and which of them.

    Of a call the callee tells it, of a comparison with a constant that one, since a switch has
    several. Comparisons are turned round at will, so those of an order are all alike.
    """
    code = insns["code"].astype(np.int64)
    group = code & 7
    is_alu = (group == _ALU32) | (group == _ALU64)
    operation = code & 0xF0
    is_constant = code & 8 == 0
    is_left_out = is_alu & (operation == _MOV)
    # Clearing and spreading upper halves, and addresses on the stack.
    is_left_out |= is_alu & is_constant & np.isin(operation, _REMADE)
    is_left_out |= isa.second_slots(insns) | isa.is_ld_imm64(insns) | isa.is_uncond_jump(insns)
    is_branch = isa.is_cond_jump(insns)
    order = np.array([_ORDER.get(one, one) for one in range(0, 0x100, 0x10)], np.int64)
    kind = np.where(is_branch, 0x100 + order[operation >> 4], code)
    kind = np.where(is_left_out, 0, kind)
    has_operand = isa.is_call(insns) | (is_branch & is_constant)
    return kind, np.where(has_operand, insns["imm"].astype(np.int64), 0)


def function_lines(function: FunctionCoverage, table: LineTable) -> Counts:
    """How often each line ran in a function.

    Args:
        function: blocks and edges with their counts.
        table: of the object.

    Returns:
        By line; None where the count of a block that it is in is not known. Without the counts
        of edges it may be less than it was: the highest of a block.
    """
    work = _Function(function, table)
    return {line: work.count(line) for line in work.runs_of}


@dataclass(slots=True)
class _Place:
    """A run of the line being counted.

    Attributes:
        run: its number.
        count: how often the line was come to here, or None where that is not known.
        is_whole: whether all that came here came to the line before in the same round of a loop.
        done: what has been done since.
    """

    run: int
    count: int | None
    is_whole: bool
    done: Done


class _Function:
    def __init__(self, function: FunctionCoverage, table: LineTable) -> None:
        self._function = function
        self._runs = runs = [run for run in table.runs(function) if run.line and not run.is_loose]
        self._table = table
        self.runs_of: dict[Line, list[int]] = {}
        self._of_block: list[list[int]] = [[] for _ in function.blocks]
        for at, run in enumerate(runs):
            self.runs_of.setdefault(self._line(at), []).append(at)
            self._of_block[run.block].append(at)

    def count(self, line: Line) -> int | None:
        """How often a line ran."""
        mine = self.runs_of[line]
        # Compilers give a jump that several paths have in common the line of one of them.
        mine = [at for at in mine if not self._table.is_jump(self._runs[at])] or mine
        blocks = self._function.blocks
        counts = [blocks[self._runs[at].block].times for at in mine]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        if len(mine) == 1 and not self._is_from_itself(mine[0], line):
            return known[0]
        places: dict[int, _Place] = {}
        for at in self._sorted(mine):
            places[at] = self._place(at, line, places)
        if any(place.count is None for place in places.values()):
            return max(known)
        total = sum(place.count or 0 for place in places.values())
        total += sum(self._rounds(at, line) for at in mine)
        return max(total, *known)

    def _sorted(self, mine: list[int]) -> list[int]:
        """In an order of control."""
        rank = self._graph.rank
        return sorted(mine, key=lambda at: (rank[self._runs[at].block], at))

    def _is_first(self, at: int) -> bool:
        return self._of_block[self._runs[at].block][0] == at

    def _is_from_itself(self, at: int, line: Line) -> bool:
        """Whether control may come to a run from the same line in another block."""
        if not self._is_first(at):
            return False
        return any(self._left(source) == line for source, _ in self._into[self._runs[at].block])

    def _place(self, at: int, line: Line, places: dict[int, _Place]) -> _Place:
        """How a run goes on from those before it.

        Args:
            at: the run.
            line: its line.
            places: of runs of the line before it, in an order of control.
        """
        run = self._runs[at]
        own = self._table.done(run.start, run.end)
        coming, going_on, kept = self._coming(at, line, own, places)
        count = self._function.blocks[run.block].times
        if going_on:
            count = _rest(count, going_on, coming)
        is_whole = len(kept) == len(going_on) and all(place.is_whole for place in kept)
        if coming and count != 0:
            before = self._before(places, run)
            if before is not None and not own.is_again(before.done):
                return _Place(at, 0, is_whole, before.done | own)
        return _Place(at, count, is_whole, reduce(or_, (place.done for place in kept), own))

    def _coming(
        self, at: int, line: Line, own: Done, places: dict[int, _Place]
    ) -> tuple[list[int | None], list[int | None], list[_Place]]:
        """How often control comes to a run from elsewhere, and goes on within the line.

        Returns:
            Counts of either kind, and the places that it goes on from; of a loop's end, which
            comes after the run, there is none.
        """
        run = self._runs[at]
        if not self._is_first(at):
            return [self._function.blocks[run.block].times], [], []
        coming, going_on, kept = [], [], []
        into = self._into[run.block]
        is_joined = any(self._left(source) != line for source, _ in into)
        for source, times in into:
            before = self._last_place(source, line, places)
            # From one round of an unrolled loop to the next, some paths lead over other lines.
            # Where none does, it may as well be a comparison of many bytes, in parts.
            is_again = is_joined and before is not None and own.is_again(before.done)
            if self._left(source) != line or is_again:
                coming.append(times)
                continue
            going_on.append(times)
            if before is not None:
                kept.append(before)
        return coming, going_on, kept

    def _last_place(self, block: int, line: Line, places: dict[int, _Place]) -> _Place | None:
        """The place that a block ends in, if it was come to before, and no loop leads back."""
        mine = self._of_block[block] if block >= 0 else []
        return places.get(mine[-1]) if mine and self._line(mine[-1]) == line else None

    def _before(self, places: dict[int, _Place], run: LineRun) -> _Place | None:
        """The nearest place of the line that all paths to a run lead through in the same round."""
        graph = self._graph
        for place in islice(reversed(places.values()), _MOST_LOOKED_AT):
            block = self._runs[place.run].block
            if (
                place.is_whole
                and graph.loop[block] == graph.loop[run.block]
                and graph.dominates(block, run.block)
            ):
                return place
        return None

    def _rounds(self, at: int, line: Line) -> int:
        """How often loops that are all on the line, and start with this run, went round."""
        head = self._runs[at].block
        if not self._is_first(at):
            return 0
        total = 0
        for source, times in self._into[head]:
            is_round = source >= 0 and self._left(source) == line and times
            if is_round and self._graph.is_back(source, head) and self._is_all(source, head, line):
                total += times or 0
        return total

    def _is_all(self, source: int, head: int, line: Line) -> bool:
        """Whether all blocks of a loop are of one line."""
        seen, work = {head}, [source]
        while work:
            block = work.pop()
            if block in seen:
                continue
            seen.add(block)
            if not self._is_of(block, line) or len(seen) > _MOST_BLOCKS:
                return False
            work += [before for before, _ in self._into[block] if before >= 0]
        return self._is_of(head, line)

    def _is_of(self, block: int, line: Line) -> bool:
        return all(self._line(at) == line for at in self._of_block[block])

    def _line(self, at: int) -> Line:
        return self._runs[at].file, self._runs[at].line

    def _left(self, block: int) -> Line | None:
        """The line that control is on when it leaves a block; None for outside."""
        return self._last[block] if block >= 0 else None

    @cached_property
    def _last(self) -> list[Line | None]:
        """By block; one without lines has that of what leads to it, if it is one."""
        lines = [self._line(runs[-1]) if runs else None for runs in self._of_block]
        bare = [block for block, runs in enumerate(self._of_block) if not runs]
        # A block is open until something leads to it whose line is known, and then has that,
        # until something else comes from another line.
        is_open = dict.fromkeys(bare, True)
        after: dict[int, list[int]] = {}
        for block in bare:
            for source, _ in self._into[block]:
                after.setdefault(source, []).append(block)
        work = bare[:]
        while work:
            block = work.pop()
            known = {
                lines[source] if source >= 0 else None
                for source, _ in self._into[block]
                if not is_open.get(source, False)
            }
            if not known:
                continue
            found = known.pop() if len(known) == 1 else None
            if is_open[block] or found != lines[block]:
                is_open[block], lines[block] = False, found
                work += after.get(block, [])
        return lines

    @cached_property
    def _into(self) -> list[list[tuple[int, int | None]]]:
        """By block, the edges to it: (source or -1, times)."""
        out: list[list[tuple[int, int | None]]] = [[] for _ in self._function.blocks]
        for edge in self._function.edges:
            if edge.goal >= 0:
                out[edge.goal].append((edge.source, edge.times))
        return out

    @cached_property
    def _graph(self) -> FlowGraph:
        inner = [(one.source, one.goal) for one in self._function.edges]
        return FlowGraph(len(self._function.blocks), [one for one in inner if min(one) >= 0])


def _rest(
    count: int | None, inside: Sequence[int | None], outside: Sequence[int | None]
) -> int | None:
    """What of a block's count came from outside: by those edges, or by the others."""
    known = [times for times in outside if times is not None]
    if len(known) == len(outside):
        return sum(known)
    gone = [times for times in inside if times is not None]
    if count is None or len(gone) < len(inside):
        return None
    return max(count - sum(gone), 0)
