"""Structural validation: every violation of a program at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bpfpatch import isa
from bpfpatch.errors import OpcodeError, SlotError, ValidationError

from .program import FUNC_INFO, LINE_INFO, Program
from .refs import References
from .types import Mask


def violations(
    program: Program, *, allow_internal: bool = False, hidden: int = isa.AX
) -> list[SlotError]:
    """Everything that is structurally wrong with a program, in slot order.

    It is wrong when an opcode is unknown, a reserved field is in use, an
    ld_imm64 lacks its second slot, a reference points outside of the program,
    into an ld_imm64, out of its subprog (a jump) or not at a subprog's start
    (a call), a subprog can run past its end, or a table row sits on no
    instruction.

    Args:
        program: to look at.
        allow_internal: whether the kernel's own form is fine: its hidden register, marks of zero
            extension.
        hidden: number of that register: 11, and from Linux 7.2 on 12.

    Source: RFC 9669 sections 3 to 5; linux v6.1, kernel/bpf/verifier.c,
    check_subprogs(), check_btf_func(), check_btf_line().
    """
    found = [
        *_bad_insns(program, allow_internal=allow_internal, hidden=hidden),
        *bad_references(program),
        *_bad_ends(program, allow_internal=allow_internal),
        *_bad_rows(program),
        *_stray_func_info(program),
    ]
    return sorted(found, key=lambda error: error.slot)


def validate(program: Program, *, allow_internal: bool = False, hidden: int = isa.AX) -> None:
    """Raise if a program is structurally wrong; see `violations`.

    Raises:
        ValidationError: with all violations.
    """
    found = violations(program, allow_internal=allow_internal, hidden=hidden)
    if found:
        raise ValidationError(found)


def check_references(program: Program) -> None:
    """Raise unless every reference is known and every row sits on an instruction.

    This is what must hold before a program can be edited at all: an opcode
    that the table lacks might hide a reference.

    Raises:
        ValidationError: with all such violations.
    """
    found = [*_unknown_opcodes(program), *_dangling_references(program), *_bad_rows(program)]
    if found:
        raise ValidationError(sorted(found, key=lambda error: error.slot))


def _unknown_opcodes(
    program: Program, among: NDArray[np.int64] | None = None
) -> Iterator[SlotError]:
    for slot in isa.unknown(program.insns, among).tolist():
        yield OpcodeError(
            program.where(slot),
            f"opcode {int(program.insns['code'][slot]):#04x} is not in the table and might hide a "
            "reference; remove it, or teach it to bpfpatch.isa.opcodes",
        )


def _bad_insns(program: Program, *, allow_internal: bool, hidden: int) -> Iterator[SlotError]:
    insns = program.insns
    suspects = isa.suspects(insns, allow_internal=allow_internal, hidden=hidden)
    yield from _unknown_opcodes(program, suspects)
    for slot, what in isa.reserved_violations(
        insns, allow_internal=allow_internal, hidden=hidden, among=suspects
    ):
        yield SlotError(program.where(slot), what)


def _dangling_references(program: Program) -> Iterator[SlotError]:
    refs, n_slots = program.refs, len(program)

    def is_outside(part: slice) -> Mask:
        return ~_is_inside(program, part)

    def is_in_the_middle(part: slice) -> Mask:
        # What is out of the program has been named already: look at slot 0 instead.
        target = np.where(is_outside(part), 0, refs.target[part])
        is_second: Mask = program.second_slots[target]
        return is_second

    for row in _rows_where(refs, is_outside):
        yield SlotError(
            program.where(int(refs.slot[row])),
            f"refers to a slot outside of the program's {n_slots}",
        )
    for row in _rows_where(refs, is_in_the_middle):
        yield SlotError(
            program.where(int(refs.slot[row])),
            f"refers to slot {refs.target[row]}, the second one of an ld_imm64",
        )


def bad_references(program: Program) -> Iterator[SlotError]:
    """References that dangle, jumps that leave their subprog, calls to no subprog's start."""
    yield from _dangling_references(program)
    refs, subprogs = program.refs, program.subprogs

    def leaves(part: slice) -> Mask:
        slot, target = refs.slot[part], refs.target[part]
        out: Mask = _is_inside(program, part) & (refs.kind[part] < isa.RefKind.CALL)
        out &= subprogs.of(slot) != subprogs.of(target)
        return out

    def misses(part: slice) -> Mask:
        is_call = _is_inside(program, part) & (refs.kind[part] >= isa.RefKind.CALL)
        is_call[is_call] = ~np.isin(refs.target[part][is_call], subprogs.start)
        return is_call

    for row in _rows_where(refs, leaves) if len(subprogs) > 1 else ():
        target = program.where(int(refs.target[row]))
        yield SlotError(
            program.where(int(refs.slot[row])), f"jumps out of its subprog, to {target}"
        )
    for row in _rows_where(refs, misses):
        target = program.where(int(refs.target[row]))
        yield SlotError(
            program.where(int(refs.slot[row])), f"refers to {target}, where no subprog starts"
        )


def _is_inside(program: Program, part: slice) -> Mask:
    """Whether references of a portion refer to a slot of the program."""
    target = program.refs.target[part]
    return (target >= 0) & (target < len(program))


def _rows_where(refs: References, test: Callable[[slice], Mask]) -> Iterator[int]:
    """Rows of references that a test on portions of them finds."""
    for part in isa.portions(refs.slot.size):
        found = np.flatnonzero(test(part))
        yield from (found + part.start).tolist()


def _bad_ends(program: Program, *, allow_internal: bool) -> Iterator[SlotError]:
    if not len(program):
        return
    last = program.subprogs.ends(len(program)) - 1
    last = np.where(program.second_slots[last], last - 1, last)
    ends = program.insns[last]
    falls = isa.alone(isa.falls_through, ends)
    # What does not return (bpf_throw, for one) ends a subprog as well, and is a kfunc.
    is_good = isa.alone(isa.is_kfunc_call, ends) | np.isin(last, program.external)
    if allow_internal:
        # So does a call of what always throws: the kernel removes the code after it.
        is_good |= isa.alone(isa.is_subprog_call, ends)
    for slot in last[falls & ~is_good].tolist():
        yield SlotError(
            program.where(slot),
            "the last instruction of its subprog is neither an exit nor an unconditional jump",
        )


def _bad_rows(program: Program) -> Iterator[SlotError]:
    for name, table in program.tables.items():
        is_inside = (table.insn >= 0) & (table.insn < len(program))
        on_second = np.zeros(len(table), bool)
        on_second[is_inside] = program.second_slots[table.insn[is_inside]]
        for row in np.flatnonzero(~is_inside | on_second).tolist():
            what = "is the second slot of an ld_imm64" if on_second[row] else "does not exist"
            slot = int(table.insn[row])
            yield SlotError(
                program.where(slot), f"row {row} of {name} sits on this slot, which {what}"
            )


def _stray_func_info(program: Program) -> Iterator[SlotError]:
    func_info = program.tables.get(FUNC_INFO)
    if func_info is not None:
        stray = ~np.isin(func_info.insn, program.subprogs.start)
        for row in np.flatnonzero(stray).tolist():
            yield SlotError(
                program.where(int(func_info.insn[row])),
                f"row {row} of {FUNC_INFO} sits where no subprog starts",
            )


__all__ = ["FUNC_INFO", "LINE_INFO", "check_references", "validate", "violations"]
