"""What is asked of a relaxation, what it looks at, and what it has decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.program.types import Mask, Slots, gather

from ..state import Merged
from ..view import Layout

How: TypeAlias = Literal["auto", "gotol", "islands"]
"""With what: ``auto`` is gotol where the result needs cpu v4 anyway, else islands."""

REACH: Final = 1 << 15
"""A field of 16 bits holds distances from -REACH to REACH - 1."""

PASS: Final = "relax"
"""What `Remap.passes` calls it."""

PATIENCE: Final = 6
"""After so many rounds each one makes more room than was asked for."""


@dataclass(frozen=True, slots=True)
class Relax:
    """Whether and how far jumps are relaxed.

    Attributes:
        how: see `How`; None for not at all.
        reach: what a 16-bit field is taken to hold, `REACH` at most; less is for tests.
    """

    how: How | None = "auto"
    reach: int = REACH

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: another way than there is, or a reach that is none.
        """
        if self.how not in (None, "auto", "gotol", "islands"):
            raise OptionError(f"relax is auto, gotol, islands or None, not {self.how!r}")
        if not 4 <= self.reach <= REACH:
            raise OptionError(f"a reach is 4 to {REACH} slots, not {self.reach}")

    @classmethod
    def of(cls, asked: Relax | How | None) -> Self | Relax:
        """What the caller asked for, in any form."""
        return asked if isinstance(asked, Relax) else cls(asked)


@dataclass(frozen=True, slots=True)
class Relaxed:
    """How many far jumps were relaxed, and how.

    Attributes:
        how: "gotol" or "islands".
        n_jumps: jumps whose target was too far.
        n_islands: islands, each a ``goto``.
        n_around: jumps that lead around islands.
        n_inserted: all that was put in.
    """

    how: How
    n_jumps: int
    n_islands: int
    n_around: int
    n_inserted: int

    def __str__(self) -> str:
        """One sentence, for a user."""
        jumps = f"{self.n_jumps} jump{'s' * (self.n_jumps != 1)} too far for 16 bits"
        if self.how == "gotol":
            return f"relaxed {jumps} by gotol (cpu v4), with {self.n_inserted} more instructions"
        islands = f"{self.n_islands} island{'s' * (self.n_islands != 1)}"
        return f"relaxed {jumps} by {islands}, {self.n_around} of them led around"


class StuckError(Exception):
    """Jumps that cannot be relaxed: `linearize` makes a `ReachError` of it.

    Attributes:
        rows: rows of the references.
        hint: what to do.
    """

    def __init__(self, rows: NDArray[np.intp], hint: str) -> None:
        super().__init__(hint)
        self.rows = rows
        self.hint = hint


@dataclass(frozen=True, slots=True, eq=False)
class RelaxedCode:
    """A layout, and its references of 16 bits.

    Attributes:
        merged: what was laid out.
        layout: the places.
        heads: (m,) first slots of the subprogs.
        row: (r,) rows of the references.
        slot: (r,) referring slots, ascending.
        target: (r,) slots that they refer to.
    """

    merged: Merged
    layout: Layout
    heads: Slots
    row: NDArray[np.intp]
    slot: NDArray[np.int64]
    target: NDArray[np.int64]

    @property
    def n_slots(self) -> int:
        """How long the code is."""
        return self.layout.pool_slot.size

    def opcode(self, slots: NDArray[Any] | slice) -> NDArray[np.uint8]:
        """(n,) opcode bytes at these slots."""
        # The opcode is the lowest byte of the word. A column of the pool would be copied first.
        return gather(self.merged.pool, self.layout.pool_slot[slots]).astype(np.uint8)

    def places_of(self, is_some: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(k,) slots of the instructions whose opcode byte is marked, ascending."""
        words = self.merged.pool[: self.merged.state.n_pool]
        found = [
            np.flatnonzero(is_some.take(words[part].astype(np.uint8))) + part.start
            for part in isa.portions(words.size)
        ]
        slots = self.layout.slots(np.concatenate([np.zeros(0, np.int32), *found]).astype(np.int32))
        return np.sort(slots[slots >= 0]).astype(np.int64)

    def node(self, slots: NDArray[Any]) -> Slots:
        """(n,) nodes of the instructions at these slots."""
        out: Slots = self.layout.pool_slot[slots]
        return out

    def following(self, slots: NDArray[Any]) -> NDArray[np.int64]:
        """(n,) first slot after each instruction."""
        out: NDArray[np.int64] = slots + 1 + (self.opcode(slots) == isa.LD_IMM64)
        return out

    def at_or_before(self, slots: NDArray[Any]) -> NDArray[np.int64]:
        """(n,) first slots of the instructions that these slots are of."""
        is_second = (slots > 0) & (self.opcode(np.maximum(slots - 1, 0)) == isa.LD_IMM64)
        out: NDArray[np.int64] = slots - is_second
        return out

    def leaves(self) -> Mask:
        """(r,) whether a reference leaves its subprog."""
        out: Mask = self._subprog(self.slot) != self._subprog(self.target)
        return out

    def is_last(self, slots: NDArray[Any]) -> Mask:
        """(n,) whether each instruction is the last one of its subprog."""
        return np.isin(self.following(slots), np.append(self.heads, self.n_slots))

    def _subprog(self, slots: NDArray[Any]) -> NDArray[np.intp]:
        return np.searchsorted(self.heads, slots, side="right")


@dataclass(frozen=True, slots=True, eq=False)
class RelaxPlan:
    """What a relaxation does to a list. New node ``i`` is numbered ``n_pool + i``.

    Attributes:
        after: (k,) slot of the instruction after which each new node goes, ascending.
        word: (k,) their instructions, each a jump.
        target: (k,) the nodes that they jump to.
        site: (k,) the nodes of the jumps for which they are there.
        has_line: (k,) whether each has its site's line, and not that of where it stands.
        jump: (j,) referring nodes that get another target.
        to: (j,) that target.
        changed: (c,) nodes whose instruction changes.
        changed_word: (c,) what it becomes.
        relaxed: the account of it.
    """

    after: NDArray[np.int64]
    word: NDArray[np.uint64]
    target: Slots
    site: Slots
    has_line: Mask
    jump: Slots
    to: Slots
    changed: Slots
    changed_word: NDArray[np.uint64]
    relaxed: Relaxed


def is_far(distance: NDArray[np.int64], reach: int) -> Mask:
    """Which distances a field of 16 bits does not hold."""
    found: Mask = (distance >= reach) | (distance < -reach)
    return found
