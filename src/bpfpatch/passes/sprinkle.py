"""sprinkle: move everything, change nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.patch import Body, PatchList

from .base import Pass, register


@register
@dataclass(frozen=True)
class Sprinkle(Pass):
    """Put a `goto +0` before instructions: before each, or before one in every so many.

    The stress test of everything: the program means what it meant, and every
    jump, record and symbol in it has to move.

    Attributes:
        every: before one of this many instructions.
        seed: None for each ``every``-th from the first on; a number for a random
            choice, the same for the same number.
    """

    name = "sprinkle"
    knows_landing_pads = True
    every: int = 1
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OptionError(f"pass sprinkle: every is 1 or more, not {self.every}")
        if self.seed is not None and self.seed < 0:
            raise OptionError(f"pass sprinkle: seed is 0 or more, not {self.seed}")

    def run(self, patches: PatchList) -> None:
        """Insert them all."""
        nodes = patches.nodes()
        if self.seed is None:
            chosen = nodes[:: self.every]
        else:
            chance = np.random.default_rng(self.seed).integers(self.every, size=nodes.size)
            chosen = nodes[chance == 0]
        patches.insert_before(chosen, Body.of(isa.ja(0)))
