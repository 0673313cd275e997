"""Instructions as text for a reader: places and names instead of distances and numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bpfpatch import isa
from bpfpatch.program import Program

from .keys import function_name


class InsnTexts:
    """Gives the text of a program's instructions.

    Args:
        program: the program.
        names: by slot, what a relocation there refers to.
    """

    def __init__(self, program: Program, names: Mapping[int, str]) -> None:
        self._program = program
        self._names = names
        self._rows = isa.rows(program.insns)
        refs = program.refs
        self._targets = dict(zip(refs.slot.tolist(), refs.target.tolist(), strict=True))

    def target(self, slot: int) -> int:
        """The slot that the jump at a slot leads to, or -1."""
        target: int = self._targets.get(slot, -1)
        if not 0 <= target < len(self._program) or self._is_entry(slot):
            return -1
        return target

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

    def _is_entry(self, slot: int) -> bool:
        return int(self._program.insns["code"][slot]) in (isa.CALL, isa.LD_IMM64)

    def _function_at(self, target: int) -> str:
        index = int(self._program.subprogs.of(np.array([target], np.int32))[0])
        return function_name(self._program, index)
