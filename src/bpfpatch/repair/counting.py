"""Counting guards that fire, so that an operator can prove that none ever did."""

from __future__ import annotations

from typing import Final

from bpfpatch.elf.newdata import u64_array
from bpfpatch.passes.setting import ObjectEdit
from bpfpatch.patch import Body, PatchList

from .site import SiteCode

NAME: Final = "bpfpatch_guards"


class Counting:
    """A variable that each firing guard adds one to.

    Args:
        edit: the object that gets the variable.
    """

    def __init__(self, edit: ObjectEdit) -> None:
        self._edit = edit
        edit.add_global(NAME, bytes(8), f".bss.{NAME}", u64_array(1))

    def insert_after(
        self, patches: PatchList, node: int, text: str, code: SiteCode, slot: int
    ) -> int:
        """Put an exit that counts after an instruction; returns its first node."""
        body = Body.asm(f"r1 = 0 ll; r2 = 1; lock *(u64 *)(r1 + 0) += r2; {text}")
        first = int(patches.insert_after(node, body))
        program = patches.program
        row = int(code.view.subprog[code.subprog(slot)])
        section = program.sections[int(program.subprogs.section[row])]
        patches.attach("reloc", first, self._edit.relocation(section, NAME))
        return first
