"""Tables whose rows sit on instructions, and how a row moves when code does.

Three answers exist to "where did this instruction go?", and a table says once
which of them its rows follow:

====== ==================================== ================================
anchor the row follows                      who uses it
====== ==================================== ================================
OWN    the instruction itself               relocations, CO-RE records
LAND   where a jump to it now arrives       local labels, jump tables
ENTRY  where a call to it, or control that  subprog starts, line and func
       falls into it, now arrives           info, function symbols
====== ==================================== ================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import LostRowError, SlotError

from .types import Slots, frozen


class Anchor(Enum):
    """Which of an instruction's three places a row follows."""

    OWN = "own"
    LAND = "land"
    ENTRY = "entry"


class OnReplace(Enum):
    """What becomes of an OWN row whose instruction a body has replaced.

    ERROR also forbids to change the instruction in place; DROP lets the row stay
    on an instruction that was changed so.
    """

    ERROR = "error"
    DROP = "drop"


@dataclass(frozen=True, slots=True, eq=False)
class AnchoredTable:
    """Rows of any dtype, each on one instruction.

    In plain Python, remapping does this and no more::

        for insn, row in zip(table.insn, table.rows):
            place = remap.places(table.anchor)[insn]
            if place >= 0:
                yield place, row          # of several on one place: the last, if unique

    Attributes:
        insn: (n,) int32 slots; ascending where ``unique``.
        rows: (n,) payload of any dtype.
        anchor: which place of its instruction a row follows.
        on_replace: for OWN rows only, see `OnReplace`.
        unique: at most one row an instruction; of several that meet on one,
            the last wins, as in the kernel's verifier for line info.
        end: None, or (n,) int32 boundaries in 0..len(program): a row that
            covers a range of slots ends before this one.
    """

    insn: Slots
    rows: NDArray[Any]
    anchor: Anchor
    on_replace: OnReplace = OnReplace.ERROR
    unique: bool = False
    end: Slots | None = None

    def __post_init__(self) -> None:
        """Check shapes and order.

        Raises:
            ValueError: naming the lengths or the first row out of order.
        """
        insn = frozen(self.insn, np.int32)
        object.__setattr__(self, "insn", insn)
        object.__setattr__(self, "rows", frozen(self.rows))
        if insn.ndim != 1 or insn.size != len(self.rows):
            raise ValueError(f"{insn.size} anchors for {len(self.rows)} rows")
        if self.end is not None:
            object.__setattr__(self, "end", frozen(self.end, np.int32))
            if self.end.shape != insn.shape:
                raise ValueError(f"{self.end.size} ends for {insn.size} rows")
        if self.unique and insn.size > 1 and not (insn[1:] > insn[:-1]).all():
            row = int(np.argmax(insn[1:] <= insn[:-1])) + 1
            raise ValueError(
                f"row {row} sits on slot {insn[row]}, not after row {row - 1}'s {insn[row - 1]}"
            )

    def __len__(self) -> int:
        return int(self.insn.size)

    def with_rows(self, insn: Slots, rows: NDArray[Any], end: Slots | None = None) -> AnchoredTable:
        """The same kind of table with other rows."""
        return replace(self, insn=insn, rows=rows, end=end)


def lost_row(table: str, row: int, error: SlotError) -> LostRowError:
    """The error for a row whose policy forbids what happened to its instruction."""
    return LostRowError(
        error.where,
        table,
        row,
        f"{error.what}; let the body keep the original instruction (`@orig`)",
    )
