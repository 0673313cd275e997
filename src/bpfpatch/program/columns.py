"""Dense per-instruction data that travels with its instruction (the kernel's aux data)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .types import Insns, frozen

Fill = int | float | bool | Callable[[Insns], NDArray[Any]]
"""What an inserted instruction gets: a constant, or a function of the (n,) instructions."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One value a slot; the second slot of an ld_imm64 has one too, unused.

    Attributes:
        values: (n_slots, ...) array of any dtype.
        fill: what an inserted instruction gets. A function sees instructions as
            they stand in the program, so that it can tell, for example, which
            of them define a 32-bit register.
    """

    values: NDArray[Any]
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen(self.values, self.values.dtype))

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
