"""What a pass may know beside the list: for whom it rewrites, and what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from bpfpatch.btf import Btf
from bpfpatch.elf import ElfObject
from bpfpatch.elf.newdata import MakeType
from bpfpatch.errors import OptionError
from bpfpatch.facts import MapDefinition, Subject

from .target import Target


class ObjectEdit:
    """The object that a pipeline's list is of, for passes that add maps or variables to it.

    What is added changes no code, so the list stays the object's, and bodies
    name what was added::

        setting.edit.add_global("hits", bytes(8), ".bss")
        patches.insert_before(site, "r1 = &hits; r2 = 1; lock *(u64 *)(r1 + 0) += r2")

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

    def add_kfunc(self, name: str, kernel: Btf) -> None:
        """See `ElfObject.with_kfunc`; one that the object declares already stays."""
        known = {symbol.name for symbol in self.obj.symbols if not symbol.section}
        if name not in known:
            self.obj = self.obj.with_kfunc(name, kernel)

    def add_section(self, name: str, data: bytes) -> None:
        """See `ElfObject.with_section`."""
        self.obj = self.obj.with_section(name, data)

    def relocation(self, section: str, symbol: str) -> NDArray[Any]:
        """See `ElfObject.relocation`; a section of relocations is added where there is none."""
        return self.symbol_row(section, symbol, is_call=False)[1]

    def check_symbol(self, name: str, *, is_call: bool) -> None:
        """See `ElfObject.check_symbol`; the object gets room for relocations where it has none."""
        self.obj.check_symbol(name, is_call=is_call)
        # Now, and not when rows are made: ``edit.obj.with_code(patches.linearize())`` asks for
        # the object before that.
        if not self.obj.is_relocatable:
            self.obj = self.obj.with_relocatable()

    def symbol_row(self, section: str, name: str, *, is_call: bool) -> tuple[str, NDArray[Any]]:
        """See `ElfObject.symbol_row`; a section of relocations is added where there is none."""
        self.obj.check_symbol(name, is_call=is_call)
        try:
            return self.obj.symbol_row(section, name, is_call=is_call)
        except OptionError:
            self.obj = self.obj.with_relocatable()
            return self.obj.symbol_row(section, name, is_call=is_call)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a pass may know beside the list.

    Attributes:
        target: who is to run the result.
        subject: what a loader knows of the program; None where it is not known.
        edit: the object that the code is of; None for code that is of none.
        notices: what passes left out, as sentences for the user; each adds its own.
        counts: how often the running pass did what, by a name of its own for it, such as a
            rule's; it starts empty for each pass and becomes `PassReport.counts`.
    """

    target: Target
    subject: Subject | None = None
    edit: ObjectEdit | None = None
    notices: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
