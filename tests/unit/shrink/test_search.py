"""What is left out, and that it is no more than needed."""

from __future__ import annotations

import random

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline
from bpfpatch.shrink import ProgramCost, ShrinkReport, shrink_object
from bpfpatch.shrink.search import Search, Wish, blame
from support.models.covering import object_of

TEXT = """
.subprog main
  r6 = *(u32 *)(r1 + 0)
  r7 = r6
  r3 = 7
  *(u32 *)(r10 - 4) = r3
  r1 = r7
  call other
  if r7 == 3 goto out
  r0 += r6
out:
  exit
.subprog other
  r2 = r1
  r0 = r2
  r0 += r1
  exit
"""


class FakeJudge:
    """Says what programs cost by a rule of the test's.

    Args:
        rule: which.
    """

    def __init__(self, rule) -> None:
        self.rule = rule
        self.n_asked = 0

    def names(self) -> list[str]:
        """The one program."""
        return ["main"]

    def cost(self, obj: ElfObject, name: str) -> ProgramCost:
        """What the rule says."""
        self.n_asked += 1
        return self.rule(obj)


def sizes(obj: ElfObject) -> list[int]:
    """Slots of each function."""
    code = obj.code
    return (code.subprogs.ends(len(code)) - code.subprogs.start).tolist()


def searched(rule, wish: Wish | None = None) -> tuple[ElfObject, ElfObject, Search, ShrinkReport]:
    """An object before and after, the search and its report."""
    obj = object_of(TEXT)
    search = Search(obj, FakeJudge(rule), wish or Wish())
    made, result = search.run()
    return obj, made, search, ShrinkReport.of(obj, result, search, ())


def test_nothing_is_left_out_if_nothing_gets_worse() -> None:
    """With a judge that takes all, both functions get smaller, and nothing is undone."""
    before, after, search, report = searched(lambda _: ProgramCost(True, 100))
    assert all(new < old for old, new in zip(sizes(before), sizes(after), strict=True))
    assert not search.undone
    assert not report.undone
    assert [row.slots_after for row in report.functions] == sizes(after)


def test_only_the_guilty_function_is_left() -> None:
    """Where one function may not change, it alone stays as it was; the report says why."""
    first = object_of(TEXT)
    wanted = sizes(first)[1]

    def rule(obj: ElfObject) -> ProgramCost:
        fine = sizes(obj)[1] == wanted
        return ProgramCost(fine, 100 * fine, "" if fine else "R0 !read_ok")

    before, after, search, report = searched(rule)
    assert sizes(after)[1] == wanted
    assert sizes(after)[0] < sizes(before)[0]
    assert {one.subprog for one in search.undone} == {1}
    assert "R0 !read_ok" in report.undone[0]


def test_only_the_guilty_step_is_left_out() -> None:
    """Where the judge minds that copies go, only that step is left out in that function."""

    def rule(obj: ElfObject) -> ProgramCost:
        n_copies = int((obj.code.insns["code"][: sizes(obj)[0]] == 0xBF).sum())
        return ProgramCost(True, 100 if n_copies == 2 else 102)

    _, after, search, report = searched(rule)
    assert [(one.subprog, one.what) for one in search.undone] == [(0, "copies")]
    assert "102 instructions, not 100" in report.undone[0]
    assert rule(after).n_verified == 100


def test_one_percent_is_allowed() -> None:
    """A program may cost the verifier 1 % more, and not more than that."""
    before = ProgramCost(True, 1000)
    assert not ProgramCost(True, 1010).is_worse_than(before)
    assert ProgramCost(True, 1011).is_worse_than(before)
    assert ProgramCost(False, 0).is_worse_than(before)
    assert not ProgramCost(False, 0).is_worse_than(ProgramCost(False, 0))


def test_without_time_whole_functions_are_left() -> None:
    """When the time is over, the functions of a program that got worse are as they were."""
    first = sizes(object_of(TEXT))
    before, after, search, _ = searched(
        lambda obj: ProgramCost(sizes(obj) == first, 0), Wish(seconds=1e-9)
    )
    assert before.code.to_bytes() == after.code.to_bytes()
    assert {one.what for one in search.undone} == {"*"}


def test_what_does_not_load_is_shrunk_safely() -> None:
    """Functions of a program that does not load to begin with get safe steps only."""
    _, after, search, _ = searched(lambda _: ProgramCost(False, 0, "no"))
    safe, _ = Pipeline.parse("shrink").run_object(object_of(TEXT))
    assert after.code.to_bytes() == safe.code.to_bytes()
    assert not search.undone


def test_without_a_kernel_steps_are_safe() -> None:
    """Without a judge the result is the safe pass's."""
    made = shrink_object(object_of(TEXT), asks_kernel=False)
    safe, _ = Pipeline.parse("shrink").run_object(object_of(TEXT))
    assert made.obj.to_bytes() == safe.to_bytes()


def test_blame_finds_what_must_go() -> None:
    """Whatever set has to go, what is blamed contains it; one alone is found in few tries."""
    rng = random.Random(1)
    for _ in range(200):
        units = list(range(rng.randint(1, 40)))
        guilty = set(rng.sample(units, rng.randint(1, min(4, len(units)))))
        asked = []

        def is_fine(off: set[int], guilty: set[int] = guilty, asked: list[int] = asked) -> bool:
            asked.append(len(off))
            return guilty <= off

        assert blame(units, is_fine) == guilty
        assert len(asked) <= 8 * len(guilty)


def test_what_a_global_function_may_read_stays() -> None:
    """Another program may take the place of a global function: what it is given is not dead."""
    text = """
    .subprog main
      *(u64 *)(r10 - 8) = 5
      r1 = r10
      r1 += -8
      call other
      r0 = 0
      exit
    .subprog other
      r0 = 0
      exit
    """
    local, _ = Pipeline.parse("dead-stores").run_object(object_of(text))
    public, _ = Pipeline.parse("dead-stores").run_object(object_of(text, exported={"other"}))
    assert sizes(local)[0] == sizes(object_of(text))[0] - 1
    assert sizes(public) == sizes(object_of(text))


def test_unknown_steps_and_functions_are_refused() -> None:
    """A step, rule or function that there is not is an error that says which there are."""
    with pytest.raises(OptionError, match=r"no step or rule 'nothing'; there are: .*copies"):
        Pipeline.parse("shrink{skip=nothing}").run_object(object_of(TEXT))
    with pytest.raises(OptionError, match="no function 'nobody' to keep; there are: main, other"):
        Pipeline.parse("shrink{keep=nobody}").run_object(object_of(TEXT))
