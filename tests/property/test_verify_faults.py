"""Verify finds planted faults, and finds nothing in correct rewritings."""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.errors import UnsupportedError, ValidationError
from bpfpatch.passes import Pipeline
from bpfpatch.verify import Bounds, verify
from support.inputs.bpfobjects import XDP_TOOLS, fixture_objects
from support.models.faults import FAULTS, PARSER, XDP_FILTER, Fault, flat_of, rewriting

SECONDS = 20.0
RUNS = 20_000


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_planted_fault_is_found(fault: Fault) -> None:
    """An input is found on which a program with this fault differs, and shrunk to one that does."""
    if fault.subject == XDP_FILTER and not XDP_TOOLS.exists():
        pytest.skip("libxdp1 is not installed")
    done, broken = fault.apply()
    verdict = verify(done.before, broken, bounds=Bounds(seconds=SECONDS, runs=RUNS), **done.options)
    assert verdict.differs, verdict
    found = verdict.counterexample
    assert found is not None
    again = verify(done.before, broken, inputs=[found.case], bounds=Bounds(runs=1), **done.options)
    assert again.differs, "the shrunk input does not show the difference"
    assert found.trace, verdict


def test_there_are_many_faults() -> None:
    """At least forty faults are planted, each once, in more than six programs."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert len({fault.subject for fault in FAULTS}) > 6


@pytest.mark.parametrize(
    "pipeline", ["sprinkle{every=3,seed=1}", "nops", "dce,nops", "sprinkle,dce"]
)
def test_correct_parser_has_no_counterexample(pipeline: str) -> None:
    """Nothing is reported on correct rewritings of the program that the faults are planted in."""
    assert "lock" in PARSER
    done = rewriting("parser", pipeline)
    verdict = verify(
        done.before, done.after, bounds=Bounds(seconds=SECONDS, runs=3000), **done.options
    )
    assert verdict.is_same, verdict
    assert verdict.coverage is not None
    assert verdict.coverage[0].taken >= verdict.coverage[0].edges - 1, verdict


@pytest.mark.parametrize("pipeline", ["sprinkle{every=2,seed=5}", "sprinkle,dce,nops"])
def test_fixtures_have_no_counterexample(pipeline: str) -> None:
    """Nothing is reported on correct rewritings of any fixture, and most of them can be run."""
    n_same = 0
    for name, data in fixture_objects():
        if ".clang-19.v3.el." not in name:
            continue
        obj = ElfObject.parse(data)
        for info in obj.programs:
            linked = obj.link(info.name)
            try:
                done = Pipeline.parse(pipeline).run(linked.program)
            except (UnsupportedError, ValidationError):  # the latter: malformed on purpose
                continue
            after = linked.with_code(done)
            verdict = verify(
                linked, after, obj=obj, bounds=Bounds(seconds=0.6, runs=60, budget=20_000)
            )
            assert not verdict.differs, f"{name}: {verdict}"
            n_same += verdict.is_same
    assert n_same > 60


def test_branches_of_a_compiled_parser_are_reached() -> None:
    """Of a real parser's branch edges the search takes nearly all within a few thousand inputs."""
    done = rewriting("xdp_parse.clang-19.v3.el.g:parse_tc", "sprinkle")
    verdict = verify(
        done.before, done.after, bounds=Bounds(seconds=SECONDS, runs=6000), **done.options
    )
    assert verdict.is_same, verdict
    assert verdict.coverage is not None
    assert all(side.taken >= 0.9 * side.edges for side in verdict.coverage), verdict


def test_planted_faults_change_the_program() -> None:
    """Each fault makes a program that is not the one that was rewritten correctly."""
    for fault in FAULTS:
        if fault.subject == XDP_FILTER and not XDP_TOOLS.exists():
            continue
        done, broken = fault.apply()
        before, after = flat_of(done.after), flat_of(broken)
        same_code = before.to_bytes() == after.to_bytes()
        tables = before.tables.get("reloc"), after.tables.get("reloc")
        assert not same_code or tables[0] is not tables[1], fault.name
