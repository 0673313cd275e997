"""What our pipeline makes of a program, compared with what the kernel made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.bpf.loadedbtf import vmlinux_btf
from bpfpatch.bpf.records import func_info, line_info
from bpfpatch.bpf.xlated import read_xlated
from bpfpatch.facts import MEM_TYPE, MemType
from bpfpatch.loader.subject import Submitted
from bpfpatch.passes import Pipeline, Result, Target
from bpfpatch.passes.blind import Blind
from bpfpatch.program import FUNC_INFO, LINE_INFO, Program
from bpfpatch.program.types import Slots
from bpfpatch.report import Diff, diff_programs

from .addresses import fill_addresses
from .normal import Normal, normal_ours, normal_theirs

_NONE: Final = -1


class Part(StrEnum):
    """What is compared."""

    CODE = "code"
    SUBPROGS = "subprogs"
    FUNC_INFO = "func_info"
    LINE_INFO = "line_info"


@dataclass(frozen=True, slots=True)
class ParityDifference:
    """The first place at which one part differs.

    Attributes:
        part: which.
        slot: of the instruction; of a record its row.
        cause: a few words by which differences of one kind can be counted.
        text: the place, for a reader.
    """

    part: Part
    slot: int
    cause: str
    text: str

    def __str__(self) -> str:
        return f"{self.part}: {self.text} [{self.cause}]"


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """One program, rewritten by the kernel and by us.

    Attributes:
        name: of the program.
        ours: what the pipeline made, in the common form of `bpfpatch.linux.parity.normal`.
        theirs: what the kernel made, in the same form.
        result: of the pipeline.
        differences: the first of each part that differs; none if the two are equal.
    """

    name: str
    ours: Normal
    theirs: Normal
    result: Result
    differences: tuple[ParityDifference, ...]

    @property
    def is_equal(self) -> bool:
        """Whether code, subprograms, func_info and line_info are all the same."""
        return not self.differences

    @property
    def cause(self) -> str:
        """The first difference's cause; "" for none."""
        return self.differences[0].cause if self.differences else ""

    def diff(self) -> Diff:
        """The code side by side: ours is the old one."""
        return diff_programs(
            self.ours.program,
            self.theirs.program,
            old_names=self.ours.names,
            new_names=self.theirs.names,
        )


def compare(
    loaded: LoadedProgram, given: Submitted, pipeline: Pipeline, target: Target | None = None
) -> Parity:
    """Run a pipeline on a program that the kernel has, and compare.

    Blinding is the JIT's. Of a program of several functions the kernel keeps what was there
    before, but moves the line records: there the pass ``blind`` and line_info are left out.

    Args:
        loaded: the program in the kernel.
        given: the same as it was submitted, with the columns that the pipeline needs.
        pipeline: usually `Pipeline.kernel`.
        target: instead of the pipeline's own.

    Raises:
        KernelError: the kernel withholds its code.
        UnsupportedError: a pass cannot handle the program.
        SlotError: the same, with its place.
    """
    xlated = read_xlated(loaded)
    shows_blinding = len(xlated.program.subprogs) == 1
    is_blinded = any(isinstance(one, Blind) for one in pipeline.passes)
    if is_blinded and not shows_blinding:
        kept = tuple(one for one in pipeline.passes if not isinstance(one, Blind))
        pipeline = replace(pipeline, passes=kept)
    target = target or pipeline.target
    if target.btf is None:
        target = replace(target, btf=vmlinux_btf())
    result = pipeline.run(given.program, target, given.subject)
    ours = normal_ours(result.program, given.subject)
    theirs = normal_theirs(xlated, given.subject, given.map_ids)
    filled = fill_addresses(ours.program, theirs.program, result, given)
    ours = Normal(filled, ours.names)
    differences = [_code(ours.program, theirs.program, result, given)]
    differences.append(_subprogs(ours.program, theirs.program, xlated.hidden))
    if loaded.btf is not None:
        differences.append(_records(Part.FUNC_INFO, ours.program, theirs.program, loaded.program))
        if shows_blinding or not is_blinded:
            made = _records(Part.LINE_INFO, ours.program, theirs.program, loaded.program)
            differences.append(made)
    found = tuple(one for one in differences if one is not None)
    return Parity(loaded.name, ours, theirs, result, found)


def first_difference(ours: Program, theirs: Program) -> int:
    """The first slot at which two programs differ, or -1.

    A jump over a difference differs as well, if only in its distance: it is named only where
    nothing else is.
    """
    n = min(len(ours), len(theirs))
    for a, b in ((_placeless(ours), _placeless(theirs)), (ours.insns, theirs.insns)):
        unequal = np.flatnonzero(a[:n].view(np.uint64) != b[:n].view(np.uint64))
        if unequal.size:
            return int(unequal[0])
        if len(ours) != len(theirs):
            return n
    return _NONE


def _placeless(program: Program) -> NDArray[Any]:
    """The instructions without distances."""
    insns = program.insns.copy()
    refs = program.refs
    is_short = refs.kind == isa.RefKind.JUMP16
    insns["off"][refs.slot[is_short]] = 0
    insns["imm"][refs.slot[~is_short]] = 0
    return insns


def _code(
    ours: Program, theirs: Program, result: Result, given: Submitted
) -> ParityDifference | None:
    slot = first_difference(ours, theirs)
    if slot == _NONE:
        return None
    cause = cause_at(slot, ours, theirs, result, given)
    mine, its = _text(ours, slot), _text(theirs, slot)
    return ParityDifference(
        Part.CODE, slot, cause, f"slot {slot}: we have {mine}, the kernel {its}"
    )


def _text(program: Program, slot: int) -> str:
    return f"`{isa.describe(program.insns, slot)}`" if slot < len(program) else "nothing"


def _subprogs(ours: Program, theirs: Program, hidden: Slots) -> ParityDifference | None:
    """Compare starts, but for those that are only guessed: no answer of the kernel has them."""
    mine = ours.subprogs.start.tolist()
    its = np.setdiff1d(theirs.subprogs.start, hidden).tolist()
    if mine == its:
        return None
    index = _first_unequal(mine, its)
    what = f"{len(mine)} subprograms, the kernel {len(its)}; number {index} starts"
    return ParityDifference(
        Part.SUBPROGS,
        index,
        "subprogs",
        f"we have {what} at {_at(mine, index)} and at {_at(its, index)}",
    )


def _records(
    part: Part, ours: Program, theirs: Program, submitted: Program
) -> ParityDifference | None:
    """Compare func_info or line_info, where the kernel was given any."""
    make, table = {
        Part.FUNC_INFO: (func_info, FUNC_INFO),
        Part.LINE_INFO: (line_info, LINE_INFO),
    }[part]
    if not make(submitted).size:
        return None
    mine, its = _rows(ours, table), _rows(theirs, table)
    if mine == its:
        return None
    index = _first_unequal(mine, its)
    what = f"row {index} of {len(mine)} is {_at(mine, index)}"
    return ParityDifference(
        part, index, str(part), f"our {what}, the kernel's of {len(its)} is {_at(its, index)}"
    )


def _rows(program: Program, name: str) -> list[Any]:
    table = program.tables.get(name)
    if table is None:
        return []
    fields = [table.rows[field].tolist() for field in table.rows.dtype.names or ()]
    return list(zip(table.insn.tolist(), *fields, strict=True))


def _first_unequal(mine: list[Any], its: list[Any]) -> int:
    pairs = enumerate(zip(mine, its, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(mine), len(its)))


def _at(rows: list[Any], index: int) -> str:
    return str(rows[index]) if index < len(rows) else "absent"


# Why two programs differ, in a few words by which differences can be counted.

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
