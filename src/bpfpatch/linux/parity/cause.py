"""Why two programs differ, in a few words by which differences can be counted."""

from __future__ import annotations

from typing import Final

from bpfpatch import isa
from bpfpatch.facts import MEM_TYPE, MemType
from bpfpatch.loader.subject import Submitted
from bpfpatch.passes import Result
from bpfpatch.program import Program

_MEMORY_CLASSES: Final = (1, 2, 3)  # ldx, st, stx


def cause_at(slot: int, ours: Program, theirs: Program, result: Result, given: Submitted) -> str:
    """What causes a difference: a pass of ours, and the instruction that was rewritten.

    Args:
        slot: the first at which the two differ.
        ours: what the pipeline made.
        theirs: what the kernel made.
        result: of the pipeline.
        given: the program before.
    """
    remap = result.remap
    if slot >= len(ours):
        return f"end: {given.subject.prog_type.text}"
    site = int(remap.site[slot])
    name = remap.passes[int(remap.origin[slot])]
    what = _what(given, site)
    if name:
        return f"{name}: {what}"
    if slot < len(theirs) and ours.insns[slot]["code"] == theirs.insns[slot]["code"]:
        field = next(
            (f for f in ("regs", "off", "imm") if ours.insns[slot][f] != theirs.insns[slot][f]), ""
        )
        return f"{field} of {what}"
    return f"not rewritten: {what}"


def _what(given: Submitted, site: int) -> str:
    """An instruction of the original program: a helper's name, a field, or what it does."""
    program = given.program
    if not 0 <= site < len(program):
        return "prologue"
    insns = program.insns
    if isa.is_helper_call(insns)[site]:
        number = int(insns["imm"][site])
        return f"call {isa.HELPERS.get(number, number)}"
    code = int(insns["code"][site])
    column = program.columns.get(MEM_TYPE)
    if code & 7 in _MEMORY_CLASSES and column is not None:
        kind = MemType(int(column.values[site]))
        bits = {0: 32, 8: 16, 16: 8, 24: 64}[code & 0x18]
        verb = "load" if code & 7 == 1 else "store"
        if kind is MemType.CTX:
            place = f"{given.subject.prog_type.text} + {int(insns['off'][site])}"
            return f"{verb}{bits} of {place}"
        return f"{verb}{bits} of {kind.name.lower()}"
    words = isa.describe(insns, site).split()
    return " ".join(word for word in words if not word.strip("()")[1:].isdigit())[:40]
