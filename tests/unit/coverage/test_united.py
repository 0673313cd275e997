"""Coverage of several objects, as of one."""

from __future__ import annotations

import pytest

from bpfpatch.coverage import Coverage, cover_map
from bpfpatch.coverage.united import united
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline
from support.models.covering import object_of

CALLER = """
.subprog {name}
  r0 = {value}
  if r1 == 1 goto L
  r0 = 1
L:
  call g
  exit
.subprog g
  r0 = 2
  exit
"""


def of(text: str, hits: int, options: str = "") -> Coverage:
    """An object's coverage with all counters at one number."""
    cover = cover_map(Pipeline.parse(f"cover{{{options}}}").run_object(object_of(text))[0])
    return Coverage.of(cover, [hits] * cover.n_counters)


def calls(coverage: Coverage) -> dict[str, int]:
    """Calls by function."""
    return {one.name: one.calls for one in coverage.functions}


def test_loads_of_one_object_are_added_up() -> None:
    """The same object twice is one, with both counts."""
    text = CALLER.format(name="f0", value=0)
    one, two = of(text, 3), of(text, 4)
    assert calls(united([one, two])) == {
        name: calls(one)[name] + calls(two)[name] for name in ("f0", "g")
    }


def test_functions_of_two_objects_stand_side_by_side() -> None:
    """Each object's own functions keep their counts; a function of both has the sum."""
    one = of(CALLER.format(name="f0", value=0), 5)
    two = of(CALLER.format(name="f1", value=7), 6)
    both = united([one, two])
    assert calls(both) == {
        "f0": calls(one)["f0"],
        "f1": calls(two)["f1"],
        "g": calls(one)["g"] + calls(two)["g"],
    }
    kept = (*one.functions, two.functions[0])
    assert [len(f.blocks) for f in both.functions] == [len(f.blocks) for f in kept]


def test_equal_names_of_other_code_are_two_functions() -> None:
    """A name is no proof: what differs in its code is another function."""
    one = of(CALLER.format(name="f0", value=0), 5)
    two = of(CALLER.format(name="f0", value=7), 6)
    assert [f.name for f in united([one, two]).functions] == ["f0", "g", "f0"]


def test_ways_of_counting_mix() -> None:
    """What was counted plainly and exactly is one report, which is no more than plain."""
    text = CALLER.format(name="f0", value=0)
    both = united([of(text, 1), of(text, 1, "count=plain")])
    assert both.cover.counting == "plain"
    assert calls(both) == {name: 2 * n for name, n in calls(of(text, 1)).items()}
    assert len(both.objects) == 2


def test_nothing_is_an_error() -> None:
    """There is no coverage of nothing."""
    with pytest.raises(OptionError, match="nothing was instrumented"):
        united([])
