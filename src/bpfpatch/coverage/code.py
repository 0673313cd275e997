"""The original instructions as text, with places and names in place of distances."""

from __future__ import annotations

import numpy as np

from bpfpatch import isa
from bpfpatch.text import visible

from .model import Coverage


class CountedCode:
    """An object's code before it was instrumented.

    Args:
        coverage: has the code, and the names of what it refers to.

    Attributes:
        goals: by slot of a jump, the slot that it goes to.
    """

    def __init__(self, coverage: Coverage) -> None:
        insns = coverage.cover.insns
        self._names = coverage.cover.names
        self._insns = insns
        self._rows: list[int] = isa.rows(insns).tolist()
        self._kinds: list[int] = isa.ref_kinds(insns).tolist()
        self._imm: list[int] = insns["imm"].tolist()
        self._name_at = {one.start: one.name for one in coverage.functions}
        self._sections = {one.section for one in coverage.functions}
        self.goals = _jump_goals(insns)

    def text(self, slot: int) -> str:
        """One instruction, "" for the second half of an ld_imm64. A jump leads to ``LSLOT``."""
        row = self._rows[slot]
        if row == isa.SECOND:
            return ""
        goal = f"L{self.goals[slot]}" if slot in self.goals else ""
        if self._kinds[slot] in (isa.RefKind.CALL, isa.RefKind.FUNC):
            goal = visible(self._function(slot))
        high = self._imm[slot + 1] if slot + 1 < len(self._imm) else 0
        name = visible(self._names.get(slot, ""))
        return isa.readable(row, isa.fields_of(self._insns, slot), high, goal, name)

    def listed(self, start: int, end: int) -> list[tuple[int, str]]:
        """The instructions from one slot up to another: (slot, text)."""
        rows = ((slot, self.text(slot)) for slot in range(start, min(end, len(self._rows))))
        return [row for row in rows if row[1]]

    def _function(self, slot: int) -> str:
        """The function that a call or an address names: by a symbol of its own, or by its place."""
        name = self._names.get(slot, "")
        if name and name not in self._sections:
            return name
        return self._name_at.get(slot + 1 + self._imm[slot], name)


def _jump_goals(insns: isa.Insns) -> dict[int, int]:
    """By slot, where jumps go."""
    kinds = isa.ref_kinds(insns)
    is_short = kinds == isa.RefKind.JUMP16
    found = np.flatnonzero(is_short | (kinds == isa.RefKind.JUMP32))
    distance = np.where(is_short, insns["off"], insns["imm"]).astype(np.int64)
    goals = found + 1 + distance[found]
    is_inside = (goals >= 0) & (goals < len(insns))
    return dict(zip(found[is_inside].tolist(), goals[is_inside].tolist(), strict=True))
