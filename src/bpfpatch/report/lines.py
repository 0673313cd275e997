"""The lines of a diff, before they become text, HTML or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpfpatch.program import INSERTED

from .diff import NO_SLOT, Diff, FunctionDiff, Op
from .insntext import InsnTexts


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a diff.

    Attributes:
        kind: ``same``, ``removed``, ``added``; ``source`` for a source line;
            ``label`` for a place that a shown jump leads to; ``skipped`` for
            equal instructions that are left out.
        text: the instruction, source line, label, or number of instructions.
        old: slot in the old program, or -1.
        new: slot in the new program, or -1.
        note: the pass that put an instruction in, where that is known.
    """

    kind: str
    text: str
    old: int = NO_SLOT
    new: int = NO_SLOT
    note: str = ""


class DiffLines:
    """Makes the lines of a diff's functions.

    Args:
        diff: the diff.
        context: how many equal instructions to show around a change; None for all.
    """

    def __init__(self, diff: Diff, context: int | None) -> None:
        self._diff = diff
        self._context = context
        self._old = InsnTexts(diff.old, diff.old_names)
        self._new = InsnTexts(diff.new, diff.new_names)

    def of(self, function: FunctionDiff) -> Iterator[Line]:
        """The lines of one function."""
        shown = self._shown(function)
        labels = _Labels(function)
        goals = self._goals(function, shown, labels)
        source, n_skipped = "", 0
        rows = zip(
            shown.tolist(),
            function.op.tolist(),
            function.old_slot.tolist(),
            function.new_slot.tolist(),
            strict=True,
        )
        for is_shown, op, old, new in rows:
            if not is_shown:
                n_skipped += 1
                continue
            if n_skipped:
                yield Line("skipped", f"{n_skipped} equal")
                source, n_skipped = "", 0
            line = self._source(old, new)
            if line and line != source:
                yield Line("source", line)
                source = line
            label = labels.of(old, new)
            if label in goals:
                yield Line("label", f"{label}:")
            yield from self._row(op, old, new, labels)
        if n_skipped:
            yield Line("skipped", f"{n_skipped} equal")

    def _shown(self, function: FunctionDiff) -> NDArray[np.bool_]:
        """(r,) which rows are near enough to a change."""
        n = function.op.size
        if self._context is None:
            return np.ones(n, bool)
        changes = np.flatnonzero(function.op)
        edges = np.zeros(n + 1, np.int64)
        np.add.at(edges, np.maximum(changes - self._context, 0), 1)
        np.add.at(edges, np.minimum(changes + self._context + 1, n), -1)
        return np.cumsum(edges)[:n] > 0

    def _goals(self, function: FunctionDiff, shown: NDArray[np.bool_], labels: _Labels) -> set[str]:
        """Labels that the shown jumps lead to."""
        out = set()
        for old in function.old_slot[shown & (function.op != Op.EQUAL)].tolist():
            if old != NO_SLOT:
                out.add(self._old_goal(old, labels))
        for new in function.new_slot[shown].tolist():
            if new != NO_SLOT:
                out.add(self._new_goal(new, labels))
        return out - {""}

    def _old_goal(self, slot: int, labels: _Labels) -> str:
        """The label that the jump at an old slot leads to; "" for the next instruction."""
        target = self._old.target(slot)
        return "" if target == slot + 1 else labels.of_old(target)

    def _new_goal(self, slot: int, labels: _Labels) -> str:
        target = self._new.target(slot)
        return "" if target == slot + 1 else labels.of_new(target)

    def _row(self, op: int, old: int, new: int, labels: _Labels) -> Iterator[Line]:
        if op == Op.EQUAL:
            yield Line("same", self._new.text(new, self._new_goal(new, labels)), old, new)
            return
        if old != NO_SLOT:
            text = self._old.text(old, self._old_goal(old, labels))
            yield Line("removed", text, old)
        if new != NO_SLOT:
            text = self._new.text(new, self._new_goal(new, labels))
            yield Line("added", text, NO_SLOT, new, self._note(new))

    def _source(self, old: int, new: int) -> str:
        diff = self._diff
        source = diff.new.source(new) if new != NO_SLOT else diff.old.source(old)
        return "" if source is None else f"{source}  {source.text}".rstrip()

    def _note(self, new: int) -> str:
        remap = self._diff.remap
        if remap is None or int(remap.orig[new]) != INSERTED:
            return ""
        return remap.passes[int(remap.origin[new])]


class _Labels:
    """Names for places: by the old slot where there is one, else by the new one."""

    def __init__(self, function: FunctionDiff) -> None:
        both = (function.old_slot != NO_SLOT) & (function.new_slot != NO_SLOT)
        self._old_of = dict(
            zip(function.new_slot[both].tolist(), function.old_slot[both].tolist(), strict=True)
        )

    def of(self, old: int, new: int) -> str:
        """The label of a row."""
        return self.of_old(old) if old != NO_SLOT else self.of_new(new)

    def of_old(self, slot: int) -> str:
        """The label of an old slot; "" for none."""
        return "" if slot == NO_SLOT else f"L{slot}"

    def of_new(self, slot: int) -> str:
        """The label of a new slot; "" for none."""
        if slot == NO_SLOT:
            return ""
        return f"L{self._old_of[slot]}" if slot in self._old_of else f"N{slot}"
