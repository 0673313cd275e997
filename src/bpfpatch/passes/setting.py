"""What a pass may know beside the list: for whom it rewrites, and what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from bpfpatch.elf import ElfObject
from bpfpatch.elf.newdata import MakeType
from bpfpatch.errors import OptionError
from bpfpatch.facts import MapDefinition, Subject

from .target import Target


class ObjectEdit:
    """The object that a pipeline's list is of, for passes that add maps or variables to it.

    What is added changes no code, so the list stays the object's::

        edit.add_global("hits", bytes(8), ".bss")
        node = patches.insert_before(site, Body.asm("r1 = 0 ll"))
        patches.attach("reloc", node, edit.relocation("xdp", "hits"))

    Attributes:
        obj: with all that has been added.
        prunes: whether what only code that goes has used, such as a map, is to go with it.
    """

    def __init__(self, obj: ElfObject) -> None:
        self.obj = obj
        self.prunes = False

    def add_map(self, new: MapDefinition, value: MakeType | None = None) -> None:
        """See `ElfObject.with_map`."""
        self.obj = self.obj.with_map(new, value)

    def add_global(
        self, name: str, data: bytes, section: str = ".bss", make: MakeType | None = None
    ) -> None:
        """See `ElfObject.with_global`."""
        self.obj = self.obj.with_global(name, data, section, make)

    def add_section(self, name: str, data: bytes) -> None:
        """See `ElfObject.with_section`."""
        self.obj = self.obj.with_section(name, data)

    def relocation(self, section: str, symbol: str) -> NDArray[Any]:
        """See `ElfObject.relocation`; a section of relocations is added where there is none."""
        try:
            return self.obj.relocation(section, symbol)
        except OptionError:
            self.obj = self.obj.with_relocatable()
            return self.obj.relocation(section, symbol)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a pass may know beside the list.

    Attributes:
        target: who is to run the result.
        subject: what a loader knows of the program; None where it is not known.
        edit: the object that the code is of; None for code that is of none.
        notices: what passes left out, as sentences for the user; each adds its own.
    """

    target: Target
    subject: Subject | None = None
    edit: ObjectEdit | None = None
    notices: list[str] = field(default_factory=list)
