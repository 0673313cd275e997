"""Dense per-instruction data that travels with its instruction (the kernel's aux data)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .types import Insns, frozen

Fill = int | float | bool | Callable[[Insns], NDArray[Any]]
"""What an inserted instruction gets: a constant, or a function of the (n,) instructions."""


class Column:
    """One value a slot; the second slot of an ld_imm64 has one too, unused. Immutable.

    Args:
        values: (n_slots, ...) array of any dtype.
        fill: what an inserted instruction gets. A function sees instructions as
            they stand in the program, so that it can tell, for example, which
            of them define a 32-bit register.
    """

    __slots__ = ("_make", "_values", "fill", "n_slots")

    def __init__(self, values: NDArray[Any], fill: Fill = 0) -> None:
        self._values: NDArray[Any] | None = frozen(values, values.dtype)
        self._make: Callable[[], NDArray[Any]] | None = None
        self.n_slots = len(values)
        self.fill = fill

    @classmethod
    def later(cls, make: Callable[[], NDArray[Any]], n_slots: int, fill: Fill = 0) -> Self:
        """A column whose (n_slots, ...) values are made when somebody first asks for them."""
        column = cls(np.zeros(0), fill)
        column._values, column._make, column.n_slots = None, make, n_slots
        return column

    @property
    def values(self) -> NDArray[Any]:
        """(n_slots, ...) array, read-only."""
        if self._values is None:
            assert self._make is not None
            values = self._make()
            self._values, self._make = frozen(values, values.dtype), None
            assert len(self._values) == self.n_slots
        return self._values

    def __len__(self) -> int:
        """Length in slots."""
        return self.n_slots

    def fill_for(self, insns: Insns) -> NDArray[Any]:
        """Values for these inserted instructions, shape (n, ...).

        Raises:
            ValueError: the fill function returned another shape.
        """
        shape = (len(insns), *self.values.shape[1:])
        if not callable(self.fill):
            return np.full(shape, self.fill, self.values.dtype)
        values = np.asarray(self.fill(insns), self.values.dtype)
        if values.shape != shape:
            raise ValueError(f"the column's fill returned shape {values.shape}, not {shape}")
        return values
