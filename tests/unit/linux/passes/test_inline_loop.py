"""inline-loop without a kernel."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.errors import OptionError
from bpfpatch.facts import CALLBACK, NONE, STACK_DEPTH, column
from bpfpatch.passes import InlineLoop, Pipeline, Target
from bpfpatch.patch import PatchList
from bpfpatch.program import Anchor, AnchoredTable, Program
from support.cases.passcase import listing

TEXT = "main: r1 = 5; r2 = func cb ll; r3 = 0; r4 = 0; call 181; exit; cb: r0 = 0; exit"


def given(text: str, callback: dict[int, int], depths: tuple[int, ...] | None) -> Program:
    """A program with what the pass needs."""
    program = asm.assemble(text)
    values = np.full(len(program), NONE, np.int32)
    for slot, number in callback.items():
        values[slot] = number
    program = program.with_columns(**{CALLBACK: column(CALLBACK, values)})
    if depths is None:
        return program
    rows = np.array(depths, np.int32)
    table = AnchoredTable(program.subprogs.start, rows, Anchor.ENTRY, unique=True)
    return program.with_tables(**{STACK_DEPTH: table})


def run(program: Program) -> Program:
    """What the pass makes of it."""
    return Pipeline((InlineLoop(),), Target.internal()).run(program).program


def test_the_loop() -> None:
    """The call becomes a loop around a call of the callback."""
    done = run(given(TEXT, {1: 3, 5: 3}, (4, 0)))
    after = (
        "main: r1 = 5; r2 = func cb ll; r3 = 0; r4 = 0; if r1 <= 0x800000 goto go; w0 = -7; "
        "goto end; go: *(u64 *)(r10 - 32) = r6; *(u64 *)(r10 - 24) = r7; "
        "*(u64 *)(r10 - 16) = r8; r6 = r1; w7 = 0; r8 = r3; head: if r7 >= r6 goto done; "
        "r1 = r7; r2 = r8; call cb; r7 += 1; if r0 == 0 goto head; done: r0 = r7; "
        "r6 = *(u64 *)(r10 - 32); r7 = *(u64 *)(r10 - 24); r8 = *(u64 *)(r10 - 16); end: exit; "
        "cb: r0 = 0; exit"
    )
    assert listing(done) == listing(asm.assemble(after))
    assert done.tables[STACK_DEPTH].rows.tolist() == [32, 0]


def test_others_stay() -> None:
    """A call whose callback or flags are not known stays."""
    assert listing(run(given(TEXT, {}, None))) == listing(asm.assemble(TEXT))


def test_depths_are_asked_for() -> None:
    """Without the frames' depths there is no place to save registers."""
    with pytest.raises(OptionError, match="'stack_depth' with a row at each subprog's start"):
        InlineLoop().run(PatchList(given(TEXT, {1: 0, 5: 0}, None)))
