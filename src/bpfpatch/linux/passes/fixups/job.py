"""What all fixups work on: the code as it is before any of them, and the list that they edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.btf import Btf
from bpfpatch.errors import OptionError, UnsupportedError
from bpfpatch.facts import Subject
from bpfpatch.facts.columns import ZEXT_DST
from bpfpatch.passes.addresses import Address, addresses
from bpfpatch.passes.search import CodeIndex, groups
from bpfpatch.passes.setting import Setting
from bpfpatch.passes.sites import place_of
from bpfpatch.patch import Body, PatchList
from bpfpatch.program.types import Insns, Mask, Slots, gather

ORIG: Final = isa.make(0)
"""In `body`: the place of the original instruction."""


def body(*insns: Insns) -> Body:
    """A body of instructions; `ORIG` among them, by identity, is the original one's place."""
    at = 0
    for insn in insns:
        if insn is ORIG:
            return Body(isa.concat(insns), keeps=at)
        at += len(insn)
    return Body(isa.concat(insns))


@dataclass(slots=True)
class _Notes:
    """What is left to write into columns when all edits are made.

    Attributes:
        kept: nodes of instructions that count as patched, and which of them define 32 bits.
        addresses: nodes of inserted instructions that hold an address, and which.
        entries: by subprog of the original program, what is to run first in it.
    """

    kept: list[tuple[Slots, Mask | bool]] = field(default_factory=list)
    addresses: list[tuple[Slots, Address]] = field(default_factory=list)
    entries: dict[int, Body] = field(default_factory=dict)


class Job:
    """The code before any fixup, by slot, and the list that takes the edits.

    All fixups look at this one view: none sees what another one put in, as in
    the kernel, which skips what it has just patched.

    Attributes:
        patches: the list.
        view: its code when the pass began.
        code: where which opcodes are in it.
        setting: for whom.
    """

    def __init__(self, patches: PatchList, setting: Setting) -> None:
        self.patches = patches
        self.view = patches.view()
        self.code = CodeIndex(self.view)
        self.setting = setting
        self._notes = _Notes()

    @property
    def insns(self) -> Insns:
        """(n,) the view's instructions."""
        return self.view.insns

    @cached_property
    def subject(self) -> Subject:
        """What is known of the program.

        Raises:
            OptionError: no subject was given.
        """
        if self.setting.subject is None:
            raise OptionError(
                "pass fixup-calls needs to know the program's kind and maps: give a subject"
            )
        return self.setting.subject

    @cached_property
    def btf(self) -> Btf:
        """The kernel's types.

        Raises:
            OptionError: none were given.
        """
        if self.setting.target.btf is None:
            raise OptionError(
                "pass fixup-calls needs the kernel's types for places in its structs: "
                "give Target.internal(btf=...)"
            )
        return self.setting.target.btf

    @cached_property
    def kfunc_calls(self) -> dict[int, Slots]:
        """By type id, (k,) slots of calls of the kernel's own functions, ascending.

        Calls of modules' functions are not among them.
        """
        calls = self.code.kfunc_calls
        return {int(number): of for number, of in groups(self.insns["imm"][calls], calls)}

    @cached_property
    def _helper_calls(self) -> dict[int, Slots]:
        """By number of the helper, (k,) slots of calls that a program made itself, ascending."""
        calls = self.code.helper_calls
        number = self.insns["imm"][calls]
        is_own = (number > 0) & (number < 1 << 16)
        return {int(one): of for one, of in groups(number[is_own], calls[is_own])}

    def calls_of(self, *helpers: int) -> Slots:
        """(k,) slots of calls of these helpers, ascending."""
        parts = [self._helper_calls[one] for one in helpers if one in self._helper_calls]
        if not parts:
            return np.zeros(0, np.int32)
        return parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))

    def column(self, name: str, slots: Slots) -> NDArray[Any]:
        """(k,) a column's values at slots.

        Raises:
            OptionError: no such column.
        """
        return self.patches.aux_at(name, gather(self.view.node, slots))

    def groups(self, slots: Slots) -> Iterator[tuple[Insns, Slots]]:
        """Slots of equal instructions together: one of them, (1,), and (k,) slots."""
        for _, some in groups(gather(isa.words(self.insns), slots), slots):
            yield self.insns[some[:1]], some

    def replace(self, slots: Slots, new: Body) -> NDArray[np.int32]:
        """Put a body in the place of instructions.

        Returns:
            (k,) node of each body's first instruction.
        """
        if not slots.size:
            return slots
        if new.keeps:
            self.note_patched(slots)
        first: NDArray[np.int32] = self.patches.replace(gather(self.view.node, slots), new)
        return first

    def modify(self, slots: Slots, **fields: int | NDArray[Any]) -> None:
        """Change instructions in place."""
        self.patches.modify(gather(self.view.node, slots), **fields)

    def note_patched(self, slots: Slots, *, defines_32: bool | None = None) -> None:
        """Say that instructions count as patched, see `finish`.

        Args:
            slots: (k,) of them.
            defines_32: whether they define 32 bits now; None for those that are as they were.
        """
        if ZEXT_DST not in self.patches.program.columns:
            return
        now: Mask | bool = (
            isa.alone(isa.defines_32, self.insns[slots]) if defines_32 is None else defines_32
        )
        self._notes.kept.append((self.view.node[slots], now))

    def note_address(self, nodes: NDArray[np.int32], which: Address) -> None:
        """Say that inserted instructions hold an address that only the kernel knows."""
        if nodes.size:
            self._notes.addresses.append((nodes, which))

    def at_entry(self, subprog: int, prologue: Body) -> None:
        """Run a body when a subprog is called, and not on a jump to its first instruction.

        Args:
            subprog: row of the original program's ``subprogs``.
            prologue: put in when all other edits are made.
        """
        self._notes.entries[subprog] = prologue

    def finish(self) -> None:
        """Put in the prologues and write the columns, when all other edits are made.

        To the kernel all of a patch is new: whether the upper half of a result
        is read was found out for the original instruction, and is forgotten.

        Source: linux v6.18, kernel/bpf/verifier.c, adjust_insn_aux_data().
        """
        patches, notes = self.patches, self._notes
        if notes.entries:
            view = patches.view()
            heads = dict(zip(view.subprog.tolist(), view.node[view.starts].tolist(), strict=True))
            for subprog, prologue in notes.entries.items():
                patches.prepend(heads[subprog], prologue)
        if notes.kept:
            zext_dst = patches.aux(ZEXT_DST)
            for nodes, defines_32 in notes.kept:
                zext_dst[nodes] = defines_32
        if not notes.addresses:
            return
        values = addresses(patches)
        for nodes, which in notes.addresses:
            values[nodes] = which

    def refuse(self, slot: int, what: str) -> UnsupportedError:
        """The error for an instruction that no fixup can do."""
        return UnsupportedError(f"{place_of(self.patches, self.view, slot)}: {what}")
