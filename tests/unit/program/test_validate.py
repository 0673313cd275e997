"""Structural validation: a test for each kind of violation, and all of them at once."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.errors import OpcodeError, ValidationError
from bpfpatch.isa import call_subprog, concat, exit_, ja, jump, ld_imm64, make, mov
from bpfpatch.program import (
    FUNC_INFO,
    LINE_INFO,
    Anchor,
    AnchoredTable,
    Program,
    Subprogs,
    check_references,
    validate,
    violations,
)


def found(*parts, **more) -> list[tuple[int, str]]:
    """(slot, what) of every violation of this code."""
    return [(error.slot, error.what) for error in violations(Program(concat(parts), **more))]


def row(*slots) -> AnchoredTable:
    """A table with a row on each of these slots."""
    return AnchoredTable(np.array(slots, np.int32), np.zeros(len(slots)), Anchor.OWN)


TWO = Subprogs.from_starts({0: "f", 2: "g"})


def test_a_sound_program():
    """A sound program has no violations."""
    given = Program(
        concat([jump("==", 1, 0, 2), call_subprog(2), exit_(), exit_(), mov(0, 0), ja(-2)]),
        tables={LINE_INFO: row(0, 4), FUNC_INFO: row(0, 4)},
    )
    assert violations(given) == []
    validate(given)
    validate(Program(concat([])))


CASES = {
    "unknown opcode": ([make(0xFF), exit_()], 0, "opcode 0xff is not in the table"),
    "reserved field": ([make(0x95, dst=3)], 0, "must be 0, not 3"),
    "no such register": ([make(0xB7, dst=12), exit_()], 0, "register r12"),
    "frame pointer": ([make(0xB7, dst=10), exit_()], 0, "read-only"),
    "missing second slot": ([exit_(), ld_imm64(1, 2)[:1]], 1, "second slot"),
    "dirty second slot": ([ld_imm64(1, 2)[:1], mov(1, 1), exit_()], 1, "must be 0 in all but imm"),
    "jump past the end": ([ja(1), exit_()], 0, "outside of the program's 2"),
    "jump before the start": ([mov(0, 0), ja(-3)], 1, "outside of the program's 2"),
    "call past the end": ([call_subprog(1), exit_()], 0, "outside of the program's 2"),
    "jump into ld_imm64": ([ja(1), ld_imm64(1, 2), exit_()], 0, "refers to slot 2, the second one"),
    "falls off the end": ([mov(0, 0)], 0, "neither an exit nor an unconditional jump"),
    "condition at the end": (
        [mov(0, 0), jump("==", 1, 0, -2)],
        1,
        "neither an exit nor an unconditional",
    ),
    "ld_imm64 at the end": ([ld_imm64(1, 2)], 0, "neither an exit nor an unconditional jump"),
}


@pytest.mark.parametrize(("parts", "slot", "what"), CASES.values(), ids=CASES)
def test_violation(parts, slot, what):
    """This is wrong, and only this."""
    got = found(*parts)
    assert any(at == slot and what in text for at, text in got), got
    assert {at for at, _ in got} == {slot}


def test_jump_out_of_its_subprog():
    """A jump stays inside its subprog; the error names the other one."""
    got = found(ja(1), exit_(), exit_(), subprogs=TWO)
    assert got == [(0, "jumps out of its subprog, to insn 2 in subprog g `exit`")]


def test_call_of_no_subprogs_start():
    """A call is of a subprog's start."""
    got = found(call_subprog(2), exit_(), mov(0, 0), exit_(), subprogs=TWO)
    assert got == [(0, "refers to insn 3 in subprog g `exit`, where no subprog starts")]


def test_subprog_runs_into_the_next():
    """Every subprog ends in exit or an unconditional jump, not the last one only."""
    got = found(mov(0, 0), mov(0, 0), exit_(), subprogs=TWO)
    assert [slot for slot, _ in got] == [1]


@pytest.mark.parametrize("last", [exit_(), ja(-1), isa.gotol(-1)])
def test_what_may_end_a_subprog(last):
    """An exit or an unconditional jump."""
    assert found(last) == []


def test_what_does_not_return_may_end_a_subprog():
    """So may a call of a kfunc, such as bpf_throw, or one that a relocation will fill in."""
    assert found(isa.call_kfunc(5)) == []
    assert found(call_subprog(-1), external=np.array([0])) == []


@pytest.mark.parametrize(
    ("slot", "what"),
    [(-1, "which does not exist"), (9, "which does not exist"), (1, "the second slot")],
)
def test_row_on_nothing(slot, what):
    """A table row sits on an instruction."""
    got = found(ld_imm64(1, 2), exit_(), tables={"mine": row(slot)})
    assert len(got) == 1
    assert got[0][0] == slot
    assert got[0][1].startswith("row 0 of mine sits on this slot, ")
    assert what in got[0][1]


def test_func_info_off_a_start():
    """A func_info row sits on a subprog's start."""
    got = found(mov(0, 0), exit_(), exit_(), subprogs=TWO, tables={FUNC_INFO: row(0, 1)})
    assert got == [(1, "row 1 of func_info sits where no subprog starts")]


def test_all_at_once():
    """All violations are reported together, in slot order, one a line."""
    given = Program(
        concat([make(0xFF), ja(70), make(0x95, dst=3), mov(0, 0)]),
        tables={"mine": row(40)},
    )
    with pytest.raises(ValidationError) as caught:
        validate(given)
    assert [error.slot for error in caught.value.violations] == [0, 1, 2, 3, 40]
    assert isinstance(caught.value.violations[0], OpcodeError)
    text = str(caught.value).splitlines()
    assert text[0] == "5 violations:"
    assert len(text) == 6


def test_one_alone():
    """A single violation is the whole message."""
    with pytest.raises(ValidationError, match=r"^insn 0 "):
        validate(Program(mov(0, 0)))


def test_call_ends_a_subprog_in_the_kernels_own_form():
    """What follows a call of a function that always throws is gone there, and only there."""
    given = Program.from_bytes(concat([call_subprog(1), exit_(), call_subprog(-1)]).tobytes())
    validate(given, allow_internal=True)
    with pytest.raises(ValidationError, match="neither an exit nor an unconditional jump"):
        validate(given)


def test_check_references_asks_for_less():
    """To be edited, a program need not be fit to load: it may end anywhere and jump anywhere."""
    code = Program(concat([mov(0, 0), ja(0), mov(10, 0)]), subprogs=TWO)
    assert check_references(code) is None
    with pytest.raises(ValidationError):
        validate(code)


@pytest.mark.parametrize("parts", [[make(0xFF)], [ja(5)], [ja(1), ld_imm64(1, 2), exit_()]])
def test_check_references_asks_for_sound_references(parts):
    """But an unknown opcode might hide a reference, and a reference must lead to an instruction."""
    with pytest.raises(ValidationError):
        check_references(Program(concat(parts)))


def test_external_references_are_not_judged():
    """What a relocation will fill in may hold anything until then."""
    assert found(call_subprog(-7), exit_(), external=np.array([0])) == []
