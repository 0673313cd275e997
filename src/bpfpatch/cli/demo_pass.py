"""The demo's own pass: what a user's looks like."""

from __future__ import annotations

from dataclasses import dataclass

from bpfpatch import isa
from bpfpatch.passes import Pass
from bpfpatch.patch import Body, PatchList


@dataclass(frozen=True)
class Scrub(Pass):
    """Leave nothing behind in scratch registers: clear R1 to R5 before every exit."""

    name = "scrub"
    last: int = 5

    def run(self, patches: PatchList) -> None:
        """Insert before all exits; a jump to an exit runs it, too."""
        clear = "; ".join(f"r{number} = 0" for number in range(1, self.last + 1))
        patches.insert_before(patches.find(isa.is_exit), Body.asm(clear))
