"""Instructions as text for a reader: places and names instead of distances and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.program import Program
from bpfpatch.program.types import Slots

from .keys import function_name

NO_LABEL: Final = -1
"""In place of a label: none."""

_GOAL: Final = "\0"
"""Stands for a label in a text that many jumps share."""

Texts = NDArray[Any]
"""(k,) of str, as Python objects."""


def new_label(slot: Slots) -> Slots:
    """The numbers of labels at slots that only the new program has; old ones are their slot."""
    return -2 - slot


def label_text(label: int) -> str:
    """A label by its number: ``L`` and the old slot, or ``N`` and the new one; "" for none."""
    if label == NO_LABEL:
        return ""
    return f"L{label}" if label >= 0 else f"N{-2 - label}"


class InsnTexts:
    """Gives the text of a program's instructions.

    Args:
        program: the program.
        names: by slot, what a relocation there refers to.
        safe: makes text fit for where it goes; applied to what `texts` gives.
    """

    def __init__(
        self, program: Program, names: Mapping[int, str], safe: Callable[[str], str] = str
    ) -> None:
        self._program = program
        self._names = names
        self._safe = safe
        self._rows = isa.rows(program.insns)
        refs = program.refs
        self._targets = dict(zip(refs.slot.tolist(), refs.target.tolist(), strict=True))
        self._plain: dict[int, str] = {}
        self._jumps: dict[int, tuple[str, str]] = {}
        self._others: dict[tuple[int, int, str, int], str] = {}

    def text(self, slot: int, label: str = "") -> str:
        """One instruction.

        Args:
            slot: where it starts.
            label: what to call the place that it jumps to; "" for the distance.
        """
        insns = self._program.insns
        high = int(insns["imm"][slot + 1]) if slot + 1 < len(insns) else 0
        fields = isa.fields_of(insns, slot)
        name = self._names.get(slot, "")
        target = self._targets.get(slot, -1)
        goal = label
        if self._is_entry(slot) and 0 <= target < len(self._program):
            goal = name or self._function_at(target)
        return isa.readable(int(self._rows[slot]), fields, high, goal, name)

    def texts(self, slots: Slots, labels: Slots) -> Texts:
        """Many instructions, each text that several share made once.

        Args:
            slots: (k,) where they start.
            labels: (k,) numbers of the places that they jump to, or NO_LABEL for the distance.
        """
        out = np.empty(slots.size, object)
        is_jump = labels != NO_LABEL
        is_other = self._is_unlike_its_word[slots] & ~is_jump
        plain, jumps = np.flatnonzero(~(is_jump | is_other)), np.flatnonzero(is_jump)
        self._put_plain(out, plain, slots[plain])
        self._put_jumps(out, jumps, slots[jumps], labels[jumps])
        others = np.flatnonzero(is_other)
        out[others] = [self._other(slot) for slot in slots[others].tolist()]
        return out

    @cached_property
    def jump_targets(self) -> Slots:
        """(n,) the slot that each slot's jump leads to; -1 for none, or out of the program."""
        out = np.full(len(self._program), -1, np.int32)
        refs = self._program.refs
        inside = ~refs.is_entry & (refs.target >= 0) & (refs.target < len(self._program))
        out[refs.slot[inside]] = refs.target[inside]
        return out

    @cached_property
    def _words(self) -> NDArray[np.uint64]:
        return np.ascontiguousarray(self._program.insns).view(np.uint64)

    @cached_property
    def _is_unlike_its_word(self) -> NDArray[np.bool_]:
        """(n,) whether the text depends on more than the instruction's eight bytes."""
        out: NDArray[np.bool_] = self._program.insns["code"] == isa.LD_IMM64
        refs = self._program.refs
        out[refs.slot[refs.is_entry]] = True
        out[np.fromiter(self._names, np.int64, len(self._names))] = True
        return out

    def _put_plain(self, out: Texts, where: NDArray[np.intp], slots: Slots) -> None:
        words, first, which = np.unique(self._words[slots], return_index=True, return_inverse=True)
        known = self._plain
        made = np.empty(words.size, object)
        for at, (word, slot) in enumerate(zip(words.tolist(), slots[first].tolist(), strict=True)):
            if word not in known:
                known[word] = self._safe(self.text(slot))
            made[at] = known[word]
        out[where] = made[which]

    def _put_jumps(self, out: Texts, where: NDArray[np.intp], slots: Slots, labels: Slots) -> None:
        some = self._program.insns[slots]
        some["off"][some["code"] != isa.GOTOL] = 0
        some["imm"][some["code"] == isa.GOTOL] = 0
        words = some.view(np.uint64).tolist()
        made, known = [], self._jumps
        for word, slot, label in zip(words, slots.tolist(), labels.tolist(), strict=True):
            found = known.get(word)
            if found is None:
                before, _, after = self.text(slot, _GOAL).partition(_GOAL)
                found = known[word] = self._safe(before), self._safe(after)
            made.append(found[0] + label_text(label) + found[1])
        out[where] = made

    def _other(self, slot: int) -> str:
        is_wide = int(self._program.insns["code"][slot]) == isa.LD_IMM64
        high = int(self._words[slot + 1]) if is_wide and slot + 1 < len(self._words) else 0
        target = self._targets.get(slot, -1)
        key = int(self._words[slot]), high, self._names.get(slot, ""), target
        found = self._others.get(key)
        if found is None:
            found = self._others[key] = self._safe(self.text(slot))
        return found

    def _is_entry(self, slot: int) -> bool:
        return int(self._program.insns["code"][slot]) in (isa.CALL, isa.LD_IMM64)

    def _function_at(self, target: int) -> str:
        index = int(self._program.subprogs.of(np.array([target], np.int32))[0])
        return function_name(self._program, index)
