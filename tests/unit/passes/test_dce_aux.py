"""dce and nops as the kernel does them: by the column, and once. Parity is in tests/kernel."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import facts, isa
from bpfpatch.asm import assemble
from bpfpatch.errors import LostTargetError, OptionError
from bpfpatch.passes import Dce
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Anchor, AnchoredTable, Program
from support.cases.passcase import assert_rewrite, run


def with_seen(text: str, *unseen: int) -> Program:
    """Assembly, of which all but some slots can be reached."""
    program = assemble(text)
    seen = np.ones(len(program), bool)
    seen[list(unseen)] = False
    return program.with_columns(seen=facts.column(facts.SEEN, seen))


def test_branch_that_always_jumps() -> None:
    """It becomes a goto, and what it jumps over goes."""
    before = with_seen("if r1 == 5 goto on; r0 = 1; exit; on: r0 = 2; exit", 1, 2)
    assert_rewrite(before, "dce{aux=true}", "goto on; on: r0 = 2; exit")


def test_branch_that_never_jumps() -> None:
    """It becomes a goto +0, for nops to take out."""
    before = with_seen("if r1 == 5 goto off; r0 = 1; exit; off: r0 = 2; exit", 3, 4)
    assert_rewrite(before, "dce{aux=true}", "goto +0; r0 = 1; exit")
    assert_rewrite(before, "dce{aux=true},nops{once=true}", "r0 = 1; exit")


def test_nothing_is_decided_without_the_column() -> None:
    """A branch on a constant stays while both of its ways are called reachable."""
    text = "r1 = 0; if r1 == 0 goto out; r0 = 1; out: exit"
    assert_rewrite(with_seen(text), "dce{aux=true}", text)


def test_unseen_ld_imm64_goes_with_both_slots() -> None:
    """The second slot is part of the first."""
    before = with_seen("goto on; r1 = 5 ll; on: r2 = 6 ll; exit", 1, 2)
    assert_rewrite(before, "dce{aux=true}", "goto on; on: r2 = 6 ll; exit")


def test_unseen_function_goes() -> None:
    """A whole function without reachable code is gone with its name."""
    before = with_seen("goto on; call f; on: exit; f: r0 = 1; exit", 1, 3, 4)
    result = run("dce{aux=true}", before)
    assert result.program.subprogs.names == ("",)


CALLBACK = "r2 = func f ll; goto on; call 181; on: r0 = 0; exit; f: r0 = 1; exit"
"""The callback's only use is dead: slots 3, and 6 and 7."""


def test_address_of_an_unseen_callback_is_the_next_functions() -> None:
    """The load stays, as in the kernel, and has the address of what now is in that place."""
    text = CALLBACK.replace("r0 = 0", "call g") + "; g: r0 = 2; exit"
    after = "r2 = func g ll; goto on; on: call g; exit; g: r0 = 2; exit"
    assert_rewrite(with_seen(text, 3, 6, 7), "dce{aux=true}", after)


def test_address_of_an_unseen_callback_is_0_where_none_follows() -> None:
    """The kernel leaves a number of no meaning there, if no function is left at all."""
    after = "r2 = 0 ll; goto on; on: r0 = 0; exit"
    assert_rewrite(with_seen(CALLBACK, 3, 6, 7), "dce{aux=true}", after)


def test_owned_address_of_an_unseen_callback_is_replaced() -> None:
    """What a relocation belongs to may not change: another load comes in its place."""
    row = AnchoredTable(np.array([0], np.int32), np.array([7]), Anchor.OWN)
    before = with_seen(CALLBACK, 3, 6, 7).with_tables(core_relo=row)
    result = assert_rewrite(before, "dce{aux=true}", "r2 = 0 ll; goto on; on: r0 = 0; exit")
    assert len(result.program.tables["core_relo"]) == 0


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (
            "goto on; call f; on: call g; exit; f: r0 = 1; exit; g: r0 = 2; exit",
            "call g; goto on; on: call g; exit; g: r0 = 2; exit",
        ),
        ("goto on; call f; on: r0 = 0; exit; f: r0 = 1; exit", "r0 = 0; goto +0; r0 = 0; exit"),
    ],
)
def test_inserted_call_of_an_unseen_function(text: str, after: str) -> None:
    """What a pass wrote out of a loop of no rounds calls what the kernel lets it call, or none."""
    patches = PatchList(with_seen(text, 1, 4, 5))
    patches.insert_before(0, Body(isa.call_subprog(0), labels={0: 4}))
    Dce(aux=True).run(patches)
    assert patches.linearize().program.to_bytes() == assemble(after).to_bytes()


def test_call_of_an_unseen_function_is_an_error() -> None:
    """A column that calls a call reachable and its function not contradicts itself."""
    before = with_seen("call f; call g; exit; f: r0 = 1; exit; g: r0 = 2; exit", 3, 4)
    with pytest.raises(LostTargetError, match="its target was deleted") as caught:
        run("dce{aux=true}", before)
    assert caught.value.slot == 0


def test_inserted_code_is_seen() -> None:
    """What another pass put in stays."""
    patches = PatchList(with_seen("r0 = 1; exit"))
    patches.insert_before(1, Body.asm("r0 += 1"))
    Dce(aux=True).run(patches)
    assert len(patches) == 3


@pytest.mark.parametrize(
    ("text", "unseen", "after"),
    [
        ("if r1 == 5 goto on; r0 = 1; exit; on: exit", (1, 2), "goto on; on: exit"),
        ("if r1 == 5 goto on; exit; on: r0 = 1; exit", (2, 3), "goto +0; exit"),
    ],
)
def test_owned_branch_is_replaced(text: str, unseen: tuple[int, ...], after: str) -> None:
    """A branch that a CO-RE record belongs to may not change: a goto comes in its place."""
    row = AnchoredTable(np.array([0], np.int32), np.array([7]), Anchor.OWN)
    before = with_seen(text, *unseen).with_tables(core_relo=row)
    result = assert_rewrite(before, "dce{aux=true}", after)
    assert len(result.program.tables["core_relo"]) == 0


def test_column_is_needed() -> None:
    """Without it there is nothing to go by; a pipeline finds it out, a list has to have it."""
    with pytest.raises(OptionError, match="no column 'seen'"):
        Dce(aux=True).run(PatchList(assemble("exit")))
    assert len(run("dce{aux=true}", "exit").program) == 1
