"""Random masks, and pairs of immediates that give a constant."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Imms = NDArray[np.int32]
"""Immediates: signed 32 bits each."""


class Masks:
    """A source of random 32-bit masks, the same for the same seed."""

    __slots__ = ("_rng",)

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def pair(self, constants: Imms) -> tuple[Imms, Imms]:
        """Two immediates for each constant, whose exclusive or it is.

        Since both are sign-extended alike, that holds in 64 bits too.
        """
        mask = self._rng.integers(-(1 << 31), 1 << 31, constants.size, np.int32)
        return constants ^ mask, mask
