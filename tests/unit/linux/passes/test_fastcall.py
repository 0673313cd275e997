"""fastcall without a kernel: what goes, what the frame's depth becomes, what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.errors import OptionError
from bpfpatch.facts import SEEN, STACK_DEPTH, ProgType, Subject, column
from bpfpatch.passes import Fastcall, Nops, Pipeline, Target
from bpfpatch.program import Anchor, AnchoredTable, Program
from support.cases.passcase import listing

TRACING = Subject(ProgType.RAW_TRACEPOINT)
SPILL = "r1 = 1; *(u64 *)(r10 - 8) = r1; call 8; r1 = *(u64 *)(r10 - 8); "


def run(text: str, subject: Subject | None = TRACING, depth: int | None = None) -> Program:
    """What the pass and `nops` leave."""
    program = asm.assemble(text)
    if depth is not None:
        starts = program.subprogs.start
        rows = np.full(starts.size, depth, np.int32)
        table = AnchoredTable(starts, rows, Anchor.ENTRY, unique=True)
        program = program.with_tables(**{STACK_DEPTH: table})
    return (
        Pipeline((Fastcall(), Nops(once=True)), Target.internal())
        .run(program, None, subject)
        .program
    )


def test_spill_and_fill_go() -> None:
    """A spill and its fill around the call are gone."""
    assert listing(run(SPILL + "exit")) == listing(asm.assemble("r1 = 1; call 8; exit"))


@pytest.mark.parametrize("subject", [None, Subject(ProgType.SOCKET_FILTER)])
def test_only_where_it_is_promised(subject: Subject | None) -> None:
    """A kind of program without the promise, or an unknown one, keeps its spills."""
    assert listing(run(SPILL + "exit", subject)) == listing(asm.assemble(SPILL + "exit"))


def test_frame_gets_smaller() -> None:
    """The table says how deep the frame still is."""
    done = run("*(u64 *)(r10 - 8) = 1; " + SPILL.replace("- 8)", "- 16)") + "exit", depth=16)
    assert done.tables[STACK_DEPTH].rows.tolist() == [8]


def test_other_calls_keep_the_frame() -> None:
    """Where a call that clobbers has such a pattern, too, the frame stays as deep."""
    done = run(SPILL + "*(u64 *)(r10 - 8) = r1; call 7; r1 = *(u64 *)(r10 - 8); exit", depth=8)
    assert len(done) == 6
    assert done.tables[STACK_DEPTH].rows.tolist() == [8]


@pytest.mark.parametrize(
    "use",
    [
        "r0 = *(u64 *)(r10 - 8)",
        "r2 = r10; r2 += -8; r0 = *(u64 *)(r2 + 0)",
        "r2 = r10; r2 += -8; call 4",
        "r2 = r10; r2 -= r0; r0 = *(u64 *)(r2 + 0)",
        "r1 = r10; r1 += -8; call sub",
    ],
)
def test_slots_in_use_stay(use: str) -> None:
    """If anything else might touch the slots, all stays."""
    text = f"main: {SPILL}{use}; exit; sub: r0 = 0; exit"
    if "call sub" not in use:
        text = f"{SPILL}{use}; exit"
    assert listing(run(text)) == listing(asm.assemble(text))


def test_dead_code_does_not_count() -> None:
    """What cannot be reached touches nothing."""
    text = SPILL + "goto end; r0 = *(u64 *)(r10 - 8); end: exit"
    program = asm.assemble(text)
    seen = np.arange(len(program)) != 5
    program = program.with_columns(**{SEEN: column(SEEN, seen)})
    done = Pipeline((Fastcall(),), Target.internal()).run(program, None, TRACING).program
    assert done.insns["code"].tolist()[:4] == [0xB7, 0x05, 0x85, 0x05]
    assert done.columns[SEEN].values.tolist() == seen.tolist()


def test_dead_patterns_stay_dead() -> None:
    """The nops in the place of a pattern that cannot be reached cannot be reached either."""
    program = asm.assemble("r0 = 0; exit; " + SPILL + "exit")
    seen = np.arange(len(program)) < 2
    program = program.with_columns(**{SEEN: column(SEEN, seen)})
    done = Pipeline((Fastcall(),), Target.internal()).run(program, None, TRACING).program
    assert done.columns[SEEN].values.tolist() == seen.tolist()


def test_kfuncs_need_types() -> None:
    """What a kernel function clobbers is in the kernel's types."""
    with pytest.raises(OptionError, match="needs the kernel's types"):
        run("*(u64 *)(r10 - 8) = r5; call kfunc 7; r5 = *(u64 *)(r10 - 8); exit")


def test_programs_without_spills_are_left_alone() -> None:
    """Without 8-byte stores there is nothing to look for, whatever is called."""
    text = "call kfunc 7; r0 = 0; exit"
    assert listing(run(text)) == listing(asm.assemble(text))
