"""What the text of a place means: a source line, a function, or an instruction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from bpfpatch import isa
from bpfpatch.errors import OptionError
from bpfpatch.program import LINE_INFO, Program
from bpfpatch.program.types import Slots
from bpfpatch.text import unknown

_SLOT: Final = re.compile(r"#(\d+)")
_LINE: Final = re.compile(r"(.+):(\d+)")
_IN_FUNCTION: Final = re.compile(r"(.+?)\+(0x[0-9a-fA-F]+|\d+)")
_MOST_SHOWN: Final = 8

FORMS: Final = "FILE:LINE, FUNCTION, FUNCTION+SLOT or #SLOT"


@dataclass(frozen=True, slots=True)
class TraceSpot:
    """A place in the code.

    Attributes:
        slot: it is in front of this slot of the program.
        is_call: only a call of the function counts, not a jump back to its first instruction.
    """

    slot: int
    is_call: bool = False


def find_spots(program: Program, at: str) -> tuple[TraceSpot, ...]:
    """The places that a text names, in order of their slots.

    ``FILE:LINE`` is each way into what the line became: where its records start,
    but for those that only go on in the same block. ``FUNCTION`` is each call of it.
    ``FUNCTION+12`` and ``#812`` count slots, from the function's first and from the
    program's.

    Args:
        program: the code.
        at: the text.

    Raises:
        OptionError: it names nothing, or not the start of an instruction.
    """
    if match := _SLOT.fullmatch(at):
        return (TraceSpot(_instruction(program, int(match[1]), len(program), at)),)
    if match := _LINE.fullmatch(at):
        return _in_line(program, match[1], int(match[2]))
    if at in program.subprogs.names:
        return tuple(TraceSpot(start, is_call=True) for start, _ in _functions(program, at))
    match = _IN_FUNCTION.fullmatch(at)
    if match and match[1] in program.subprogs.names:
        inside = int(match[2], 0)
        spans = _functions(program, match[1])
        return tuple(TraceSpot(_instruction(program, a + inside, b, at)) for a, b in spans)
    known = [name for name in program.subprogs.names if name]
    function = unknown("function", at.partition("+")[0], known)
    raise OptionError(f"{at!r} is no place: give {FORMS}; {function}")


def _functions(program: Program, name: str) -> list[tuple[int, int]]:
    """(first slot, slot behind the last) of all functions of a name."""
    ends = program.subprogs.ends(len(program)).tolist()
    rows = zip(program.subprogs.names, program.subprogs.start.tolist(), ends, strict=True)
    return [(start, end) for known, start, end in rows if known == name]


def _instruction(program: Program, slot: int, end: int, at: str) -> int:
    if slot >= end:
        raise OptionError(f"{at!r} is behind the end: the last slot there is {end - 1}")
    if program.second_slots[slot]:
        raise OptionError(f"{at!r} is the second slot of an instruction; give {slot - 1} there")
    return slot


def _in_line(program: Program, file: str, line: int) -> tuple[TraceSpot, ...]:
    rows = _rows(program)
    if not rows:
        raise OptionError(
            f"{file}:{line} cannot be found: the code has no line records; compile it with -g, or "
            "give FUNCTION, FUNCTION+SLOT or #SLOT"
        )
    mine = [row for row in rows if _is_of(row[1], file)]
    if not mine:
        files = sorted({row[1].rpartition("/")[2] for row in rows})
        raise OptionError(unknown("file with code", file, files))
    entered = _jump_targets(program)
    out = []
    before: tuple[int, str, int, int] | None = None
    for row in rows:
        goes_on = before is not None and before[1:] == row[1:] and row[0] not in entered
        if _is_of(row[1], file) and row[2] == line and not goes_on:
            out.append(TraceSpot(row[0]))
        before = row
    if not out:
        lines = sorted({row[2] for row in mine}, key=lambda one: (abs(one - line), one))
        near = _some([str(one) for one in sorted(lines[:_MOST_SHOWN])])
        raise OptionError(f"line {line} of {file} has no code; lines nearby that have: {near}")
    return tuple(out)


def _rows(program: Program) -> list[tuple[int, str, int, int]]:
    """(slot, file, line, function's index) of each line record, by slot."""
    table = program.tables.get(LINE_INFO)
    slots = np.zeros(0, np.int32) if table is None else np.sort(table.insn)
    owner = program.subprogs.of(slots).tolist()
    out = []
    for slot, subprog in zip(slots.tolist(), owner, strict=True):
        source = program.source(slot)
        if source is not None and source.line:
            out.append((slot, source.file, source.line, subprog))
    return out


def _jump_targets(program: Program) -> set[int]:
    """Where a block starts: what is jumped to, and what comes behind a jump."""
    refs = program.refs
    is_jump = ~refs.is_entry
    behind: Slots = np.flatnonzero(isa.is_jump(program.insns)).astype(np.int32) + 1
    return {*refs.target[is_jump].tolist(), *behind.tolist()}


def _is_of(path: str, file: str) -> bool:
    """Whether a path is, or ends in, the name that was given for the file."""
    return path == file or path.endswith(f"/{file.lstrip('/')}")


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_SHOWN
    return ", ".join(names[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
