"""Repair an object, or a flat program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bpfpatch.elf import ElfObject
from bpfpatch.elf.rewrite import Dwarf
from bpfpatch.facts.kinds import ProgType
from bpfpatch.patch import Linearized
from bpfpatch.program import Program

from .counting import Counting
from .report import RepairReport
from .rounds import Limits, Rounds
from .sources import FlatSource, ObjectSource


@dataclass(frozen=True, slots=True, eq=False)
class Repaired:
    """What a repair gave.

    Attributes:
        report: what was done.
        code: the code as it is now, with its remap from the original.
        obj: the object with it; None for a flat program.
    """

    report: RepairReport
    code: Linearized
    obj: ElfObject | None


def repair(
    obj: ElfObject,
    *,
    name: str = "",
    prog_type: ProgType | None = None,
    on_guard: int | None = None,
    count: bool = False,
    dwarf: Dwarf = "update",
    limits: Limits | None = None,
    progress: Callable[[str], None] | None = None,
) -> Repaired:
    """Mend the programs of an object that the running kernel refuses.

    Args:
        obj: stays as it is.
        name: of it, for its maps' names in the kernel.
        prog_type: kind of all programs; by default what the sections say.
        on_guard: what a program returns where a guard fires; by default what drops the packet.
        count: count guards that fire, in a variable that the object gets for that.
        dwarf: see `ElfObject.with_code`.
        limits: when to give up.
        progress: told of each mending.

    Raises:
        KernelError: the object's maps cannot be made here.
        BpfPatchError: the object is broken.
    """
    source = ObjectSource(obj, name, prog_type, dwarf)
    try:
        counting = None
        if count:
            counting = Counting(source.edit)
            source.reopen()
        rounds = Rounds(source, limits or Limits(), on_guard, counting, progress)
        rounds.run()
        return Repaired(rounds.report, rounds.code, source.with_code(rounds.code))
    finally:
        source.close()


def repair_program(
    program: Program,
    prog_type: ProgType = ProgType.SOCKET_FILTER,
    *,
    on_guard: int | None = None,
    limits: Limits | None = None,
) -> Repaired:
    """Mend a flat program that the running kernel refuses.

    Args:
        program: its maps are descriptors.
        prog_type: its kind.
        on_guard: see `repair`.
        limits: see `repair`.
    """
    rounds = Rounds(FlatSource(program, prog_type), limits or Limits(), on_guard)
    rounds.run()
    return Repaired(rounds.report, rounds.code, None)
