"""What an analysis does when there is too much to do: it ends, and stays on the safe side."""

from __future__ import annotations

import pytest

from bpfpatch import asm
from bpfpatch.facts.columns import CALLBACK, NONE, SEEN, STACK_DEPTH
from bpfpatch.facts.kinds import ProgType
from bpfpatch.facts.subject import Subject
from bpfpatch.linux.verifier import worklist
from bpfpatch.linux.verifier.absint import Interpreter
from bpfpatch.linux.verifier.auxdata import aux_data
from bpfpatch.linux.verifier.state import VerifierState
from bpfpatch.program import Program

KNOWN = """
    call f
    r6 = 1
    r1 = 3
    r2 = cb ll
    r3 = r10
    r3 += -16
    r4 = 0
    call bpf_loop
    if r6 == 1 goto out
    r0 = 7
    exit
out:
    r0 = 0
    exit
f:
    *(u64 *)(r10 - 8) = 0
    r0 = 1
    exit
cb:
    *(u64 *)(r2 + 0) = 1
    r0 = 0
    exit
"""


def analyse(text: str) -> Program:
    """Aux data of a classifier, without types and maps."""
    return aux_data(asm.assemble(text), Subject(prog_type=ProgType.SCHED_CLS), None)


def spend(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """Let the work be too much after the first block, and once more after 1 / share of that."""
    monkeypatch.setattr(worklist, "_WORK", 1)
    monkeypatch.setattr(worklist, "_WORK_PER_SLOT", 0)
    monkeypatch.setattr(worklist, "_JOINED_WORK_SHARE", share)


def test_work_on_functions_that_call_each_other_in_loops_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chains of calls and visits of blocks multiply up to a limit for all of them together."""
    n_runs = 0
    run_block = Interpreter.run_block

    def counted(
        self: Interpreter, block: int, state: VerifierState, first: int | None = None
    ) -> None:
        nonlocal n_runs
        n_runs += 1
        run_block(self, block, state, first)

    monkeypatch.setattr(Interpreter, "run_block", counted)
    lines = ["r6 = *(u32 *)(r1 + 0)", "r1 = r6", "call f0", "exit"]
    for depth in range(5):
        call = [f"r1 = r7; call f{depth + 1}; r7 += r0"] * 4
        lines += [f"f{depth}:", "r6 = 0; r7 = r1", f"again{depth}:", *call, "r6 += 1"]
        lines += [f"if r6 != r7 goto again{depth}", "r0 = r6", "exit"]
    lines += ["f5:", "r0 = r1", "exit"]
    aux = analyse("\n".join(line.replace("; ", "\n") for line in lines))
    assert aux.columns[SEEN].values.all()
    assert n_runs < 2 * (worklist._WORK + worklist._WORK_PER_SLOT * len(aux))


@pytest.mark.parametrize("share", [1 << 30, 1], ids=["given up at once", "joined for a while"])
def test_all_that_can_be_called_is_seen_when_work_is_too_much(
    monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    """Functions, callbacks and what is behind their calls are reached all the same."""
    before = analyse(KNOWN)
    spend(monkeypatch, share)
    after = analyse(KNOWN)
    assert not (before.columns[SEEN].values & ~after.columns[SEEN].values).any()


def test_given_up_loop_is_not_inlined(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bpf_loop that is reached with anything has no callback that is always the same."""
    assert set(analyse(KNOWN).columns[CALLBACK].values.tolist()) != {NONE}
    spend(monkeypatch, 1 << 30)
    assert set(analyse(KNOWN).columns[CALLBACK].values.tolist()) == {NONE}


def test_stack_that_is_used_through_a_lost_pointer_still_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The depth of a frame is no less where the callee that uses it is entered with anything."""
    assert analyse(KNOWN).tables[STACK_DEPTH].rows.tolist() == [16, 8, 0]
    spend(monkeypatch, 1 << 30)
    assert analyse(KNOWN).tables[STACK_DEPTH].rows.tolist() == [16, 8, 0]


@pytest.mark.parametrize(("rounds", "is_seen"), [("0", False), ("1", True), ("r6", True)])
def test_callback_of_no_rounds_is_not_seen(rounds: str, is_seen: bool) -> None:
    """bpf_loop runs its callback where R1 may be more than 0.

    Source: linux v6.18, kernel/bpf/verifier.c, check_helper_call(), BPF_FUNC_loop.
    """
    aux = analyse(f"""
        r6 = *(u32 *)(r1 + 0)
        r1 = {rounds}
        r2 = cb ll
        r3 = 0
        r4 = 0
        call bpf_loop
        r0 = 0
        exit
    cb:
        r0 = 0
        exit
    """)
    assert aux.columns[SEEN].values[-2:].tolist() == [is_seen, is_seen]
