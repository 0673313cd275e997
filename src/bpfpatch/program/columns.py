"""Dense per-instruction data that travels with its instruction (the kernel's aux data)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from .types import Insns, fixed

_NOTHING: Final = np.zeros(0)

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

    __slots__ = ("_fill", "_make", "_n_slots", "_values")

    def __init__(self, values: NDArray[Any], fill: Fill = 0) -> None:
        self._values = fixed(values)
        self._make: Callable[[], NDArray[Any]] | None = None
        self._n_slots = len(values)
        self._fill = fill

    @classmethod
    def later(cls, make: Callable[[], NDArray[Any]], n_slots: int, fill: Fill = 0) -> Self:
        """A column whose (n_slots, ...) values are made on the first use."""
        column = cls(_NOTHING, fill)
        column._make, column._n_slots = make, n_slots
        return column

    @property
    def values(self) -> NDArray[Any]:
        """(n_slots, ...) array, read-only."""
        make = self._make
        if make is not None:
            values = fixed(make())
            assert len(values) == self._n_slots
            self._values, self._make = values, None  # in this order: others may be reading
        return self._values

    @property
    def fill(self) -> Fill:
        """What an inserted instruction gets."""
        return self._fill

    def __len__(self) -> int:
        """Length in slots."""
        return self._n_slots

    def __repr__(self) -> str:
        return f"Column({self._n_slots} slots, fill={self._fill!r})"

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
