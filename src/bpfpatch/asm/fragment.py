"""What parsing assembly gives: instructions, and names that may not be resolved yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bpfpatch.isa import Insns


@dataclass(frozen=True, slots=True)
class FragmentRef:
    """One reference by name.

    Attributes:
        slot: the referring instruction; which field it is about follows from
            `bpfpatch.isa.ref_kinds`.
        label: the name, which the text may define or not.
        line: 1-based line of the name.
        column: 1-based column of the name.
    """

    slot: int
    label: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """Parsed assembly.

    Attributes:
        insns: (n,) `bpfpatch.isa.INSN`, read-only. Reference fields that have a
            `FragmentRef` hold 0, numeric distances are filled in. The place
            of ``@orig`` is one all-zero slot.
        refs: references by name, in slot order.
        labels: label to slot; n where it stands at the end.
        keeps: the slot of ``@orig`` ("the original instruction goes here"), or None.
        lines: n 1-based lines, of each slot's instruction.
        subprogs: (slot, name) of what is called, declared or at slot 0, ascending.
    """

    insns: Insns
    refs: tuple[FragmentRef, ...]
    labels: Mapping[str, int]
    keeps: int | None
    lines: tuple[int, ...]
    subprogs: tuple[tuple[int, str], ...]
