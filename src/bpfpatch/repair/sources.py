"""What is repaired: the programs of an object, or one flat program."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from bpfpatch.elf import ElfObject
from bpfpatch.elf.rewrite import Dwarf
from bpfpatch.facts.kinds import ProgType
from bpfpatch.linux.log.judge import LoadVerdict, judge_flat, judge_linked
from bpfpatch.loader.guess import Guess, guess_types
from bpfpatch.loader.object import KernelObject
from bpfpatch.passes.setting import ObjectEdit
from bpfpatch.patch import Linearized
from bpfpatch.program import Program
from bpfpatch.program.types import Slots


class RepairedSource(Protocol):
    """What is repaired."""

    @property
    def program(self) -> Program:
        """The code that the patch list is of."""

    @property
    def edit(self) -> ObjectEdit | None:
        """The object, for what is added to it; None for a flat program."""

    def names(self) -> list[str]:
        """Programs to load."""

    def type_of(self, name: str) -> ProgType | None:
        """The kind of one of them."""

    def load(self, name: str, code: Linearized) -> tuple[LoadVerdict, Slots]:
        """Load one, and say which slot of the code each slot of what was submitted is."""

    def close(self) -> None:
        """Close all that is in the kernel."""


class ObjectSource:
    """All programs of an object.

    Args:
        obj: the object.
        name: of it, for its maps' names in the kernel.
        prog_type: kind of all programs; by default what the sections say.
        dwarf: see `ElfObject.with_code`.
    """

    def __init__(
        self,
        obj: ElfObject,
        name: str = "",
        prog_type: ProgType | None = None,
        dwarf: Dwarf = "update",
    ) -> None:
        self.edit = ObjectEdit(obj)
        self._opened = KernelObject(obj, Path(name).name.split(".")[0], None)
        self._guesses = guess_types(obj, prog_type)
        self._made: tuple[Linearized, ElfObject] | None = None
        self._base = obj
        self._dwarf: Dwarf = dwarf

    @property
    def program(self) -> Program:
        """The object's code."""
        return self._base.code

    def names(self) -> list[str]:
        """Programs that a loader loads by itself."""
        return self._opened.autoloaded()

    def type_of(self, name: str) -> ProgType | None:
        """The kind of a program."""
        return self._guesses[name].type

    def with_code(self, code: Linearized) -> ElfObject:
        """The object with other code."""
        if self._made is None or self._made[0] is not code:
            self._made = code, self.edit.obj.with_code(code, self._dwarf)
        return self._made[1]

    def reopen(self) -> None:
        """Make the maps again: some were added."""
        self._opened.close()
        self._opened = KernelObject(self.edit.obj, "repaired", None)

    def load(self, name: str, code: Linearized) -> tuple[LoadVerdict, Slots]:
        """Load one program of the object with this code."""
        linked = self.with_code(code).link(name)
        verdict = judge_linked(self._opened, linked, self._guesses[name], code.remap, self.program)
        if verdict.loaded is not None:
            verdict.loaded.close()
        return verdict, linked.origin

    def close(self) -> None:
        """Close maps and programs."""
        self._opened.close()


class FlatSource:
    """One flat program.

    Args:
        program: the program; its maps are descriptors.
        prog_type: its kind.
    """

    edit: ObjectEdit | None = None

    def __init__(self, program: Program, prog_type: ProgType = ProgType.SOCKET_FILTER) -> None:
        self._program = program
        self._type = prog_type

    @property
    def program(self) -> Program:
        """The program."""
        return self._program

    def names(self) -> list[str]:
        """The one, without a name."""
        return [""]

    def type_of(self, name: str) -> ProgType | None:
        """Its kind."""
        return self._type

    def load(self, name: str, code: Linearized) -> tuple[LoadVerdict, Slots]:
        """Load it with this code."""
        verdict = judge_flat(code.program, Guess(self._type))
        if verdict.loaded is not None:
            verdict.loaded.close()
        return verdict, np.arange(len(code.program), dtype=np.int32)

    def close(self) -> None:
        """Nothing is open."""
