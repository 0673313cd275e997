"""Run a program, and see what ran of it."""

from __future__ import annotations

import gc

import pytest

from bpfpatch import coverage
from bpfpatch.elf import ElfObject
from bpfpatch.errors import LinkError
from bpfpatch.passes import Cover
from bpfpatch.runs import Input, Outcome
from support.inputs.bpfobjects import fixture_path
from support.models.covering import object_of

TEXT = ".subprog f0\nr6 = r1\nr0 = *(u8 *)skb[0]\nif r0 == 1 goto L\nr0 = 2\nexit\nL:\nr0 = 3\nexit"


def packet(first: int) -> Input:
    """A packet that begins with this byte behind its Ethernet header."""
    return Input(packet=bytes([*bytes(14), first, *bytes(49)]))


@pytest.mark.parametrize("count", ["plain", "atomic", "percpu"])
def test_runs_are_counted_together(count: str) -> None:
    """Each way to count gives the counts of all runs."""
    obj = coverage.instrumented(object_of(TEXT), Cover(edges=True, count=count))
    ran = coverage.run(obj, "f0", [packet(1), packet(0), packet(1)])
    assert [one.r0 for one in ran.outcomes] == [3, 2, 3]
    assert ran.coverage.functions[0].calls == 3
    (branch,) = ran.coverage.functions[0].branches
    assert (branch.taken, branch.not_taken) == (2, 1)


def test_any_number_of_runs() -> None:
    """Inputs are taken as they are needed, and outcomes that are handed out are not kept."""
    alive, seen = [], []

    def take(outcome: Outcome) -> None:
        seen.append(outcome.r0)
        if len(seen) % 100 == 0:
            alive.append(sum(isinstance(one, Outcome) for one in gc.get_objects()))

    inputs = (packet(at & 1) for at in range(300))
    ran = coverage.run(object_of(TEXT), "f0", inputs, each=take)
    assert (ran.outcomes, ran.n_runs) == ((), 300)
    assert seen == [2, 3] * 150
    assert max(alive) - min(alive) < 10
    assert ran.coverage.functions[0].calls == 300


def test_an_object_is_instrumented_for_the_run() -> None:
    """One that does not count is made to, and told apart both sides of branches."""
    ran = coverage.run(object_of(TEXT), "f0", [packet(1)])
    assert ran.coverage.functions[0].branches[0].taken == 1


def test_an_instrumented_object_stays_as_it_is() -> None:
    """One that counts is run as it is."""
    obj = coverage.instrumented(object_of(TEXT))
    assert coverage.instrumented(obj) is obj


def test_no_runs_count_nothing() -> None:
    """Without inputs all is 0, per-cpu counters too, of which nothing is in the map then."""
    for count in ("plain", "percpu"):
        obj = coverage.instrumented(object_of(TEXT), Cover(count=count))
        assert coverage.run(obj, "f0", []).coverage.functions[0].calls == 0


def test_failed_runs_are_told() -> None:
    """What a run that failed has counted is there, with a notice."""
    ran = coverage.run(object_of(TEXT), "f0", [packet(1)], budget=3)
    assert ran.outcomes[0].error is not None
    assert ran.coverage.notices[0].startswith("1 of 1 runs failed")


def test_tail_called_programs_are_counted_too() -> None:
    """Programs that an object's program array starts with count in the same run."""
    obj = ElfObject.read(fixture_path("tail_calls.clang-19.v3.el.g.o"))
    ran = coverage.run(obj, "entry", [Input(packet=bytes(64))])
    called = [one.name for one in ran.coverage.functions if one.calls]
    assert len(called) > 1


def test_an_unknown_program() -> None:
    """The error is that of a link."""
    with pytest.raises(LinkError):
        coverage.run(object_of(TEXT), "nobody", [])
