"""Which aux data passes say that they go by."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from bpfpatch import asm
from bpfpatch.facts import AUX_COLUMNS, Subject
from bpfpatch.facts.columns import CALL_MAP, MANY, MEM_TYPE, SEEN, STACK_DEPTH, column
from bpfpatch.facts.kinds import MapType
from bpfpatch.facts.maps import MapFacts
from bpfpatch.passes import Pass, Pipeline, Target, registered
from bpfpatch.passes.addresses import ADDRESS
from bpfpatch.patch import PatchList, patchlist
from bpfpatch.program import Program

QUEUE = MapFacts("q", MapType.QUEUE, 0, 8, 5)
TARGET = Target.internal()


def given() -> tuple[Program, Subject]:
    """A flat program with a call on a map and a may_goto, and what its loader knows."""
    text = "r2 = r10; r2 += -8; *(u64 *)(r10 - 8) = 1; r3 = 0; ld_pseudo r1, 1, 7; call 87; exit"
    program = asm.assemble(text)
    ld_map = np.full(len(program), -1, np.int32)
    ld_map[4] = 0
    return program.with_columns(ld_map=column("ld_map", ld_map)), Subject(maps=(QUEUE,))


def test_fixup_calls_has_the_analysis_run_by_itself() -> None:
    """On a flat program with a subject, the map that a call is on is found out."""
    program, subject = given()
    done = Pipeline.parse("fixup-calls").run(program, TARGET, subject).program
    assert done.insns["imm"][6] != 87
    assert CALL_MAP in done.columns


def test_what_is_there_stays() -> None:
    """Of what is given and what is found out, what is given counts."""
    program, subject = given()
    own = column(CALL_MAP, np.full(len(program), MANY))
    pipeline = Pipeline.parse("dce{aux=true},fixup-calls")
    done = pipeline.run(program.with_columns(call_map=own), TARGET, subject).program
    assert done.insns["imm"][6] == 87
    assert SEEN in done.columns


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("r0 = 0; exit", set()),
        ("call 1; exit", {CALL_MAP}),
        ("call 153; exit", {MEM_TYPE}),
        ("r0 = 0; may_goto +1; goto -2; exit", {STACK_DEPTH}),
    ],
)
def test_only_what_the_program_has_is_asked_for(text: str, wanted: set[str]) -> None:
    """Without calls on maps, nothing has to say on which; for bpf(2) nothing is needed."""
    program = asm.assemble(text)
    one = registered()["fixup-calls"]()
    assert set(one.needed(program, TARGET)) == wanted
    assert one.needed(program, Target.loadable()) == ()


def test_passes_declare_what_they_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pass asks its list for, it needs or uses by its own account."""
    asked: dict[str, set[str]] = defaultdict(set)
    current = ""

    def recorded(name: str) -> Any:
        real = getattr(PatchList, name)

        def ask(patches: PatchList, column: str, *rest: Any) -> Any:
            if sys._getframe(1).f_code.co_filename != patchlist.__file__:
                asked[current].add(column)
            return real(patches, column, *rest)

        return ask

    for name in ("aux", "aux_at", "set_rows"):
        monkeypatch.setattr(PatchList, name, recorded(name))
    program = asm.assemble(
        "r6 = 0; r6 /= 3; w6 = w6; *(u64 *)(r10 - 8) = r1; call 5; r1 = *(u64 *)(r10 - 8); "
        "call 118; may_goto +1; goto -2; r1 = r6; call 154; r2 = *(u32 *)(r1 + 0); r0 = 0; exit"
    )

    def starting(one: Pass) -> None:
        nonlocal current
        current = one.name

    pipeline = Pipeline.parse(
        "fastcall,dce{aux=true},nops{once=true},fixup-calls,zext{random=true},blind"
    )
    pipeline.run(program, TARGET, Subject(), progress=starting)
    assert {"fastcall", "dce", "fixup-calls", "zext"} <= asked.keys()
    for name, columns in asked.items():
        one = registered()[name]
        declared = {*one.needs, *one.uses}
        assert columns - {ADDRESS} <= declared, name


def test_declared_names_are_known() -> None:
    """A pass goes by columns and tables that an analysis fills, or by what passes note."""
    passes = registered().values()
    assert any(one.needs for one in passes)
    for one in passes:
        assert {*one.needs, *one.uses} <= AUX_COLUMNS | {STACK_DEPTH, ADDRESS}, one.name
