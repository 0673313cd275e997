"""The lines of a diff, before they become text, HTML or JSON: columns, a portion at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program import INSERTED, Program
from bpfpatch.program.types import Slots

from .diff import NO_SLOT, Diff, FunctionDiff, Op
from .insntext import NO_LABEL, InsnTexts, Texts, label_text, new_label

PORTION: Final = 1 << 15
"""Lines of which the text is made at once."""


class LineKind(IntEnum):
    """What a line of a diff says."""

    HEAD = 0
    """Which function follows."""
    SKIPPED = 1
    """How many equal instructions are left out here."""
    SOURCE = 2
    """The source line of what follows."""
    LABEL = 3
    """A place that a shown jump leads to."""
    SAME = 4
    REMOVED = 5
    ADDED = 6

    @property
    def word(self) -> str:
        """The name that `Diff.lines` and pages have for it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Some lines of a diff, in order.

    Attributes:
        kind: (k,) uint8 of `LineKind`.
        text: (k,) the instruction, source line, label, or number of instructions left out;
            None for a head.
        old: (k,) int32 slot in the old program, or NO_SLOT; of a head, which of the functions
            shown it is.
        new: (k,) int32 slot in the new program, or NO_SLOT.
        note: (k,) the pass that put an instruction in, "" where that is not known.
    """

    kind: NDArray[np.uint8]
    text: Texts
    old: Slots
    new: Slots
    note: Texts

    def of(self, kind: LineKind) -> NDArray[np.intp]:
        """Where the lines of a kind are."""
        return np.flatnonzero(self.kind == kind)


class DiffLines:
    """Makes the lines of a diff's functions.

    Args:
        diff: the diff.
        context: how many equal instructions to show around a change; None for all.
        functions: which functions.
        safe: makes text that comes from the programs fit for where it goes.
    """

    def __init__(
        self,
        diff: Diff,
        context: int | None,
        functions: list[FunctionDiff],
        safe: Callable[[str], str] = str,
    ) -> None:
        self.functions = functions
        self._diff = diff
        self._context = context
        self._safe = safe
        self._old = InsnTexts(diff.old, diff.old_names, safe)
        self._new = InsnTexts(diff.new, diff.new_names, safe)
        self._sources = _Sources(safe)
        self._rows = _Rows.of(functions)

    def portions(self) -> Iterator[Lines]:
        """All lines, some thousands at a time."""
        if not self.functions:
            return
        plan = self._plan()
        for start in range(0, plan.kind.size, PORTION):
            yield self._lines(plan.kind[start : start + PORTION], plan.value[start:][:PORTION])

    # ---- which lines there are ------------------------------------------------------------------

    def _plan(self) -> _Plan:
        rows = self._rows
        at = np.flatnonzero(self._is_shown()).astype(np.int32)
        function = rows.function[at]
        n_left_out = _left_out(at, function, rows.start)
        starts_hunk = n_left_out > 0
        starts_hunk[_firsts(function)] = True
        source = self._source_ids(at)
        parts = (
            (LineKind.SKIPPED, n_left_out > 0, n_left_out),
            (LineKind.SOURCE, _changes(source, starts_hunk), source),
            (LineKind.LABEL, self._is_goal(at), rows.label(at)),
            (LineKind.SAME, rows.op[at] == Op.EQUAL, at),
            (LineKind.REMOVED, (rows.op[at] != Op.EQUAL) & (rows.old[at] != NO_SLOT), at),
            (LineKind.ADDED, (rows.op[at] != Op.EQUAL) & (rows.new[at] != NO_SLOT), at),
        )
        return _laid_out(parts, at, function, rows.start)

    def _is_shown(self) -> NDArray[np.bool_]:
        """(r,) which rows are near enough to a change of their function."""
        rows, n = self._rows, self._rows.op.size
        if self._context is None:
            return np.ones(n, bool)
        changes = np.flatnonzero(rows.op)
        function = rows.function[changes]
        first = np.maximum(changes - self._context, rows.start[function])
        end = np.minimum(changes + self._context + 1, rows.start[function + 1])
        edges = np.bincount(first, minlength=n + 1) - np.bincount(end, minlength=n + 1)
        return np.cumsum(edges)[:n] > 0

    def _source_ids(self, at: Slots) -> Slots:
        """(k,) numbers of rows' source lines, -1 where there is none."""
        old, new = self._rows.old[at], self._rows.new[at]
        out = np.empty(at.size, np.int32)
        is_new = new != NO_SLOT
        out[is_new] = self._sources.ids(self._diff.new, new[is_new])
        out[~is_new] = self._sources.ids(self._diff.old, old[~is_new])
        return out

    def _is_goal(self, at: Slots) -> NDArray[np.bool_]:
        """(k,) whether a jump that is shown, of the same function, leads to a row."""
        rows = self._rows
        is_goal = np.zeros(rows.op.size, np.bool_)
        is_changed = rows.op[at] != Op.EQUAL
        for some, slots, label_of in (
            (at[is_changed], rows.old, self._old_labels),
            (at, rows.new, self._new_labels),
        ):
            jumps = some[slots[some] != NO_SLOT]
            target = rows.of_label(label_of(jumps), rows.function[jumps])
            is_goal[target[target >= 0]] = True
        return is_goal[at]

    def _old_labels(self, at: Slots) -> Slots:
        """(k,) labels that jumps of the old program lead to; none for the next instruction."""
        slots = self._rows.old[at]
        target = self._old.jump_targets[slots]
        return np.where(target == slots + 1, NO_LABEL, target)

    def _new_labels(self, at: Slots) -> Slots:
        """The same of the new program: what was in the function before has its old label."""
        rows, slots = self._rows, self._rows.new[at]
        target = self._new.jump_targets[slots]
        row = rows.of_label(new_label(target), rows.function[at])
        is_old = (row >= 0) & (rows.old[row] != NO_SLOT)
        label = np.where(is_old, rows.old[row], new_label(target))
        return np.where((target < 0) | (target == slots + 1), NO_LABEL, label)

    # ---- what they say --------------------------------------------------------------------------

    def _lines(self, kind: NDArray[np.uint8], value: Slots) -> Lines:
        rows = self._rows
        old, new = np.full((2, kind.size), NO_SLOT, np.int32)
        lines = Lines(kind, np.empty(kind.size, object), old, new, np.full(kind.size, "", object))
        heads = lines.of(LineKind.HEAD)
        old[heads] = value[heads]
        for one, say in (
            (LineKind.SKIPPED, lambda n: f"{n} equal"),
            (LineKind.SOURCE, self._sources.texts.__getitem__),
            (LineKind.LABEL, lambda label: f"{label_text(label)}:"),
        ):
            where = lines.of(one)
            lines.text[where] = [say(one) for one in value[where].tolist()]
        gone = lines.of(LineKind.REMOVED)
        old[gone] = rows.old[value[gone]]
        lines.text[gone] = self._old.texts(old[gone], self._old_labels(value[gone]))
        here = np.flatnonzero((kind == LineKind.SAME) | (kind == LineKind.ADDED))
        new[here] = rows.new[value[here]]
        lines.text[here] = self._new.texts(new[here], self._new_labels(value[here]))
        same = lines.of(LineKind.SAME)
        old[same] = rows.old[value[same]]
        added = lines.of(LineKind.ADDED)
        lines.note[added] = self._notes(new[added])
        return lines

    def _notes(self, new: Slots) -> Texts:
        remap = self._diff.remap
        if remap is None:
            return np.full(new.size, "", object)
        # The last one is for what no pass put in.
        names = np.array([*map(self._safe, remap.passes), ""], object)
        is_own = remap.orig[new] != INSERTED
        return names[np.where(is_own, names.size - 1, remap.origin[new])]


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of several functions, one function after the other.

    Attributes:
        op: (r,) see `FunctionDiff`.
        old: (r,) likewise.
        new: (r,) likewise.
        function: (r,) int32 of which function each is.
        start: (f + 1,) first row of each function, and r.
        of_old: rows by function and old slot.
        of_new: rows by function and new slot.
    """

    op: NDArray[np.uint8]
    old: Slots
    new: Slots
    function: Slots
    start: NDArray[np.int64]
    of_old: _RowOfSlot
    of_new: _RowOfSlot

    @classmethod
    def of(cls, functions: list[FunctionDiff]) -> _Rows:
        sizes = [one.op.size for one in functions]
        nothing = np.zeros(0, np.int32)
        old = np.concatenate([nothing, *(one.old_slot for one in functions)])
        new = np.concatenate([nothing, *(one.new_slot for one in functions)])
        function = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return cls(
            op=np.concatenate([np.zeros(0, np.uint8), *(one.op for one in functions)]),
            old=old,
            new=new,
            function=function,
            start=np.cumsum([0, *sizes]),
            of_old=_RowOfSlot.of([one.old for one in functions], old, function),
            of_new=_RowOfSlot.of([one.new for one in functions], new, function),
        )

    def label(self, at: Slots) -> Slots:
        """(k,) labels of rows: the old slot where there is one, else the new one."""
        return np.where(self.old[at] != NO_SLOT, self.old[at], new_label(self.new[at]))

    def of_label(self, labels: Slots, function: Slots) -> Slots:
        """(k,) rows of labels in these functions, -1 for none.

        What a label of a new slot leads to may have an old label, too.
        """
        new = new_label(labels)  # the numbers of new labels are their own inverse
        return np.where(labels >= 0, self.of_old(labels, function), self.of_new(new, function))


@dataclass(frozen=True, slots=True, eq=False)
class _RowOfSlot:
    """Finds rows by function and slot; two functions may show the same slot of one program.

    Attributes:
        first: (f,) first slot of each function.
        size: (f,) how many slots each has; 0 for a function that this program lacks.
        start: (f,) where each function's are in ``row``.
        row: row of each slot, one function after the other; -1 for none.
    """

    first: NDArray[np.int64]
    size: NDArray[np.int64]
    start: NDArray[np.int64]
    row: Slots

    @classmethod
    def of(cls, spans: list[tuple[int, int] | None], slots: Slots, function: Slots) -> _RowOfSlot:
        bounds = np.array([span or (0, 0) for span in spans], np.int64).reshape(-1, 2)
        first, size = bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        start = np.cumsum(size) - size
        row = np.full(int(size.sum()), -1, np.int32)
        here = np.flatnonzero(slots != NO_SLOT)
        row[(start - first)[function[here]] + slots[here]] = here
        return cls(first, size, start, row)

    def __call__(self, slots: Slots, function: Slots) -> Slots:
        """(k,) rows, -1 for none; a slot may be anything."""
        at = slots - self.first[function]
        inside = np.flatnonzero((at >= 0) & (at < self.size[function]))
        out = np.full(slots.size, -1, np.int32)
        out[inside] = self.row[self.start[function[inside]] + at[inside]]
        return out


class _Sources:
    """Source lines of instructions, each text once.

    Args:
        safe: makes a text fit for where it goes.
    """

    def __init__(self, safe: Callable[[str], str]) -> None:
        self.texts: list[str] = []
        self._safe = safe
        self._ids: dict[str, int] = {}

    def ids(self, program: Program, slots: Slots) -> Slots:
        """(k,) indices into ``texts``, -1 where there is no line record."""
        rows, which = np.unique(program.source_rows(slots), return_inverse=True)
        out = np.full(rows.size, -1, np.int32)
        has_line = np.flatnonzero(rows >= 0)
        lines = program.source_lines(rows[has_line])
        out[has_line] = [self._id(f"{line}  {line.text}".rstrip()) for line in lines]
        return out[which]

    def _id(self, text: str) -> int:
        found = self._ids.setdefault(text, len(self.texts))
        if found == len(self.texts):
            self.texts.append(self._safe(text))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Which lines there are: (k,) their kinds, and what each says, as a number."""

    kind: NDArray[np.uint8]
    value: Slots


Part = tuple[LineKind, NDArray[np.bool_], Slots]
"""A kind of line; which of the rows shown have one; the number that it says."""


def _laid_out(
    parts: tuple[Part, ...], at: Slots, function: Slots, start: NDArray[np.int64]
) -> _Plan:
    """Put the lines of rows one after the other, with heads, and what functions end with."""
    n_functions = start.size - 1
    of_row = np.sum([has for _, has, _ in parts], axis=0, dtype=np.int32)
    before = np.append(0, np.cumsum(of_row))  # lines of rows alone in front of each row
    first = np.searchsorted(function, np.arange(n_functions + 1))  # shown rows of each function
    last = np.where(first[1:] > first[:-1], at[first[1:] - 1] + 1 if at.size else 0, start[:-1])
    n_left_out = start[1:] - last
    has_tail = n_left_out > 0
    tails = np.append(0, np.cumsum(has_tail))  # in front of each function
    head = before[first[:-1]] + np.arange(n_functions) + tails[:-1]
    size = int(before[-1]) + n_functions + int(tails[-1])
    kind, value = np.empty(size, np.uint8), np.empty(size, np.int32)
    kind[head], value[head] = LineKind.HEAD, np.arange(n_functions)
    tail = (before[first[1:]] + np.arange(n_functions) + tails[:-1] + 1)[has_tail]
    kind[tail], value[tail] = LineKind.SKIPPED, n_left_out[has_tail]
    place = before[:-1] + function + 1 + tails[function]
    for which, has, said in parts:
        here = place[has]
        kind[here], value[here] = which, said[has]
        place[has] += 1
    return _Plan(kind, value)


def _left_out(at: Slots, function: Slots, start: NDArray[np.int64]) -> Slots:
    """(k,) how many rows between each shown one and the one before it are not shown."""
    previous = np.empty(at.size, np.int32)
    previous[1:] = at[:-1]
    firsts = _firsts(function)
    previous[firsts] = start[function[firsts]] - 1
    return at - previous - 1


def _firsts(function: Slots) -> NDArray[np.intp]:
    """Where a function's first shown row is."""
    return np.flatnonzero(np.diff(function, prepend=np.int32(-1)))


def _changes(ids: Slots, starts_hunk: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(k,) where a source line is another than the last one before in the same hunk."""
    out = np.zeros(ids.size, np.bool_)
    known = np.flatnonzero(ids >= 0)
    hunk = np.cumsum(starts_hunk)[known]
    some = ids[known]
    out[known[:1]] = True
    out[known[1:]] = (some[1:] != some[:-1]) | (hunk[1:] != hunk[:-1])
    return out
