"""Searches by opcode find what the predicates of the opcode table do."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.isa import decode
from bpfpatch.passes.search import CodeIndex, Opcodes, groups
from bpfpatch.patch import PatchList
from bpfpatch.program import Program

INSNS = [
    isa.ld_imm64(isa.R1, 0x85 << 32),
    isa.call_helper("map_lookup_elem"),
    isa.call_kfunc(77),
    isa.call_kfunc(78, fd_index=1),
    isa.call_helper("ktime_get_ns"),
    isa.may_goto(0),
    isa.load("u32", isa.R1, isa.R2, 4),
    isa.alu("sdiv", isa.R1, isa.R2),
    isa.alu("/=", isa.R1, 3),
    isa.mov(isa.R0, 0),
]


def index(n_times: int = 1) -> tuple[isa.Insns, CodeIndex]:
    """Code with all kinds in it, again and again, and where its opcodes are."""
    program = Program(np.concatenate([*INSNS * n_times, isa.exit_()]))
    return program.insns, CodeIndex(PatchList(program).view())


KINDS = {
    "calls": (lambda one: one.kind is isa.Kind.CALL, isa.is_call),
    "helper calls": (lambda one: one.name == "call_helper", isa.is_helper_call),
    "may_goto": (lambda one: one.name == "may_goto", isa.is_may_goto),
    "loads": (lambda one: one.kind is isa.Kind.LOAD, isa.is_load),
    "arithmetic": (lambda one: one.kind is isa.Kind.ALU, isa.is_alu),
    "ld_imm64": (lambda one: one.kind is isa.Kind.LD_IMM64, isa.is_ld_imm64),
    "packet loads": (lambda one: one.kind is isa.Kind.PACKET_LOAD, isa.is_packet_load),
}


@pytest.mark.parametrize("kind", KINDS)
def test_find_agrees_with_the_predicate(kind: str) -> None:
    """A search by rows of the table finds the slots at which the predicate holds."""
    test, predicate = KINDS[kind]
    insns, code = index()
    assert code.find(Opcodes(test)).tolist() == np.flatnonzero(predicate(insns)).tolist()


@pytest.mark.parametrize("portion", [1, 3, 16, sys.maxsize])
def test_find_works_in_portions(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is looked at in one go is not to be seen."""
    monkeypatch.setattr(decode, "_PORTION", portion)
    insns, code = index(5)
    found = code.find(Opcodes(lambda one: one.kind is isa.Kind.CALL))
    assert found.dtype == np.int32
    assert found.tolist() == np.flatnonzero(isa.is_call(insns)).tolist()


def test_a_second_slot_is_no_instruction() -> None:
    """What stands in the second slot of an ld_imm64 is never found, and has code 0."""
    _, code = index()
    assert code.codes[:2].tolist() == [isa.LD_IMM64, 0]


def test_calls_are_told_apart() -> None:
    """Helpers and the kernel's own functions; a module's are neither."""
    insns, code = index()
    assert insns["imm"][code.helper_calls].tolist() == [
        isa.HELPER_IDS["map_lookup_elem"],
        isa.HELPER_IDS["ktime_get_ns"],
    ]
    assert insns["imm"][code.kfunc_calls].tolist() == [77]


def test_groups_come_by_ascending_keys() -> None:
    """Each key once, its rows in the order in which they were."""
    found = list(groups(np.array([7, 5, 7, 9, 5]), np.array([0, 1, 2, 3, 4])))
    assert [(int(key), rows.tolist()) for key, rows in found] == [
        (5, [1, 4]),
        (7, [0, 2]),
        (9, [3]),
    ]


def test_groups_of_one_key_and_of_none() -> None:
    """Rows of one key are all of them; no rows are no group."""
    rows = np.array([3, 1, 2])
    assert [(int(key), some.tolist()) for key, some in groups(np.full(3, 4), rows)] == [
        (4, [3, 1, 2])
    ]
    assert list(groups(rows[:0], rows[:0])) == []
