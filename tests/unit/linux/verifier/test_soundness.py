"""What the value analysis claims holds of every run: its rules one by one, and what they missed."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.facts.columns import CALL_MAP, LD_MAP, MANY, NONE, SEEN, STACK_DEPTH, MemType, column
from bpfpatch.facts.kinds import MapType, ProgType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.facts.subject import Subject
from bpfpatch.linux.verifier import worklist
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.linux.verifier.scalars import UNKNOWN
from bpfpatch.linux.verifier.state import VerifierState
from bpfpatch.linux.verifier.values import Ids, pointer
from bpfpatch.program import Program
from support.models.soundrules import RULES

MAPS = (MapFacts("one", MapType.HASH, 4, 8, 4), MapFacts("two", MapType.HASH, 4, 8, 4))


def analyse(text: str) -> Program:
    """Aux data of a classifier; ONE and TWO are its maps."""
    for index, name in enumerate(("ONE", "TWO")):
        text = text.replace(f"r1 = {name}", f"ld_pseudo r1, 0x1, {index}")
    program = asm.assemble(text)
    values = np.full(len(program), NONE, np.int32)
    is_map = (program.insns["code"] == 0x18) & (program.insns["regs"] >> 4 == 1)
    values[is_map] = program.insns["imm"][is_map]
    program = program.with_columns(**{LD_MAP: column(LD_MAP, values)})
    return aux_data(program, Subject(prog_type=ProgType.SCHED_CLS, maps=MAPS), None)


def join_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all states that come to a block be joined, as there is too much to do otherwise."""
    for name in ("_BUDGET", "_FEWEST_VISITS", "_MOST_VISITS"):
        monkeypatch.setattr(worklist, name, 0)


def state(*regs: object) -> VerifierState:
    """One with these registers."""
    return VerifierState([*regs, *[None] * (10 - len(regs))], [{}], (), 0)


def maybe(ident: int) -> object:
    """A pointer that may be null."""
    return pointer(MemType.MAP_VALUE, 0, 0, ident, is_maybe_null=True)


THERE = pointer(MemType.MAP_VALUE, 0)
LINKED = (*UNKNOWN[:1], 7, *UNKNOWN[2:])


@pytest.mark.parametrize("name", sorted(RULES))
def test_rule_holds_of_concrete_states(name: str) -> None:
    """What a rule's result claims holds of each concrete state that it stands for."""
    for seed in range(800):
        assert RULES[name](random.Random(seed)) == "", f"seed {seed}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (state(maybe(1), maybe(1)), state(0, THERE)),
        (state(maybe(1), maybe(1)), state(THERE, 0)),
        (state(maybe(1), maybe(1)), state(0, maybe(2))),
        (state(maybe(1), maybe(1)), state(THERE, maybe(2))),
        (state(maybe(1), maybe(1)), state(maybe(0), maybe(0))),
        (state(LINKED, LINKED), state(UNKNOWN, UNKNOWN)),
    ],
    ids=["null, set", "set, null", "null, either", "set, either", "two unlinked", "two numbers"],
)
def test_pointers_of_one_id_cover_only_what_is_null_together(
    old: VerifierState, new: VerifierState
) -> None:
    """A state in which two are null together, or equal, does not cover one in which they differ."""
    assert not old.covers(new)


def test_pointers_of_one_id_cover_what_is_null_together() -> None:
    """What is null together is covered, whether it is null, set, or either."""
    old = state(maybe(1), maybe(1))
    for value in (0, THERE, maybe(2)):
        assert old.covers(state(value, value))


def test_callers_registers_that_are_the_same_still_have_ids() -> None:
    """A link between a caller's register and one of the callee is compared, too."""
    outer = [maybe(1)] + [None] * 9
    old = VerifierState([maybe(1)] + [None] * 9, [{}, {}], ((3, outer, False),), 0)
    new = VerifierState([maybe(2)] + [None] * 9, [{}, {}], ((3, outer, False),), 0)
    assert not old.covers(new)
    assert old.covers(old.copy())


def test_joining_opposites_links_nothing() -> None:
    """Of two pointers, each null where the other is not, a check of one says nothing of both."""
    both = state(0, THERE).joined(state(THERE, 0), Ids(5), widen=False)
    assert both.regs[0][4] != both.regs[1][4]
    same = state(0, 0).joined(state(THERE, THERE), Ids(5), widen=False)
    assert same.regs[0][4] == same.regs[1][4]


NULLNESS = """
    r1 = 0
    *(u32 *)(r10 - 4) = r1
    r2 = r10
    r2 += -4
    r1 = ONE
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r6 = r0
    call bpf_get_prandom_u32
    w0 &= 1
    if w0 == 0 goto second
    r2 = r10
    r2 += -4
    r1 = ONE
    call bpf_map_lookup_elem
    r8 = r0
    r9 = r0
    goto both
second:
    r8 = 0
    r9 = r6
both:
    if r8 != 0 goto first
    if r9 == 0 goto neither
    r0 = 2
    exit
first:
    r0 = 1
    exit
neither:
    r0 = 0
    exit
none:
    r0 = 3
    exit
"""


@pytest.mark.parametrize("is_joined", [False, True])
def test_pointers_that_are_null_on_one_path_each_leave_all_branches(
    monkeypatch: pytest.MonkeyPatch, is_joined: bool
) -> None:
    """A pointer that is null with another on one path, and without it on the other, is open."""
    if is_joined:
        join_at_once(monkeypatch)
    assert analyse(NULLNESS).columns[SEEN].values.all()


def test_store_through_a_pointer_that_was_joined_away_reaches_the_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where one path has a stack's address and the other a map's, a store may be to the stack."""
    join_at_once(monkeypatch)
    aux = analyse("""
        r6 = *(u32 *)(r1 + 0)
        r2 = r10
        r2 += -4
        *(u64 *)(r10 - 8) = 0
        r1 = ONE
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        if r6 == 0 goto put
        r0 = r10
        r0 += -8
    put:
        *(u64 *)(r0 + 0) = 1
        r7 = *(u64 *)(r10 - 8)
        if r7 == 0 goto out
        r0 = 7
        exit
    out:
        r0 = 0
        exit
    """)
    assert aux.columns[SEEN].values.all()


def test_callback_that_was_joined_away_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two paths bring two callbacks, both are reached, and may write to the stack."""
    join_at_once(monkeypatch)
    aux = analyse("""
        r6 = *(u32 *)(r1 + 0)
        *(u64 *)(r10 - 8) = 0
        r2 = first ll
        if r6 == 0 goto loop
        r2 = second ll
    loop:
        r1 = 3
        r3 = r10
        r3 += -8
        r4 = 0
        call bpf_loop
        r7 = *(u64 *)(r10 - 8)
        if r7 == 0 goto out
        r0 = 7
        exit
    out:
        r0 = 0
        exit
    first:
        *(u64 *)(r2 + 0) = 1
        r0 = 0
        exit
    second:
        r0 = 0
        exit
    """)
    assert aux.columns[SEEN].values.all()
    assert aux.tables[STACK_DEPTH].rows[0] == 8


def test_map_that_was_joined_away_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up whose map depends on the path has no map that is always the same."""
    join_at_once(monkeypatch)
    aux = analyse("""
        r6 = *(u32 *)(r1 + 0)
        *(u32 *)(r10 - 4) = 0
        r1 = ONE
        if r6 == 0 goto look
        r1 = TWO
    look:
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        r0 = 0
        exit
    """)
    assert aux.columns[CALL_MAP].values[aux.columns[CALL_MAP].values != NONE].tolist() == [MANY]


def test_moved_pointer_that_was_null_on_one_path_is_not_null(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A null pointer plus 8 is 8, whatever a check of the pointer itself says."""
    join_at_once(monkeypatch)
    aux = analyse("""
        r6 = *(u32 *)(r1 + 0)
        r7 = 0
        if r6 == 0 goto meet
        r7 = r10
    meet:
        r8 = r7
        r8 += -8
        if r7 != 0 goto out
        if r8 != 0 goto odd
        r0 = 1
        exit
    odd:
        r0 = 2
        exit
    out:
        r0 = 0
        exit
    """)
    assert aux.columns[SEEN].values[aux.columns[SEEN].values.size - 4 :].all()


def test_packet_pointer_moved_back_is_compared_anew() -> None:
    """A pointer beyond the packet's end may be within it, some bytes before."""
    aux = analyse("""
        r2 = *(u32 *)(r1 + 76)
        r3 = *(u32 *)(r1 + 80)
        r2 += 14
        if r2 <= r3 goto out
        r2 += -14
        if r2 <= r3 goto within
    out:
        r0 = 0
        exit
    within:
        r0 = 1
        exit
    """)
    assert aux.columns[SEEN].values.all()
