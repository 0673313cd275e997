"""Load programs, and say what the verifier took for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.linux.log.judge import judge_linked
from bpfpatch.loader.guess import guess_types
from bpfpatch.loader.object import KernelObject

MOST_DEARER: Final = 0.01
"""By which part more instructions the verifier may have to look at."""


@dataclass(frozen=True, slots=True)
class ProgramCost:
    """What loading a program gave.

    Attributes:
        is_loaded: whether the kernel took it.
        n_verified: instructions that the verifier looked at, again for each state; 0 where it
            was not loaded.
        reason: why it was not loaded, or "".
    """

    is_loaded: bool
    n_verified: int
    reason: str = ""

    def is_worse_than(self, before: ProgramCost) -> bool:
        """Whether it does not load though it did, or costs the verifier too much more."""
        if not before.is_loaded:
            return False
        return not self.is_loaded or self.n_verified > before.n_verified * (1 + MOST_DEARER)

    def against(self, before: ProgramCost) -> str:
        """What is worse, in a few words."""
        if not self.is_loaded:
            return f"does not load: {self.reason}"
        return f"takes the verifier {self.n_verified} instructions, not {before.n_verified}"


class KernelJudge:
    """Loads programs of an object as it was, and as it has become.

    Args:
        obj: the object as it was; its maps are made once.
        name: of it, for its maps' names in the kernel.
        prog_type: kind of all programs; by default what the sections say.

    Raises:
        BpfPatchError: its maps cannot be made here.
    """

    def __init__(self, obj: ElfObject, name: str = "", prog_type: ProgType | None = None) -> None:
        self._opened = KernelObject(obj, Path(name).name.split(".")[0], None)
        self._guesses = guess_types(obj, prog_type)

    def names(self) -> list[str]:
        """Programs that a loader loads by itself."""
        return self._opened.autoloaded()

    def cost(self, obj: ElfObject, name: str) -> ProgramCost:
        """What the kernel says to a program of the object, as it was or has become."""
        try:
            linked = obj.link(name)
        except BpfPatchError as error:
            return ProgramCost(False, 0, str(error))
        verdict = judge_linked(self._opened, linked, self._guesses[name])
        if verdict.loaded is None:
            return ProgramCost(False, 0, verdict.reason)
        verdict.loaded.close()
        return ProgramCost(True, 0 if verdict.stats is None else verdict.stats.processed)

    def close(self) -> None:
        """Close maps and programs."""
        self._opened.close()
