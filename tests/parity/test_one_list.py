"""All passes on one list, linearized once, are the same passes linearized one by one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts import ProgFlag
from bpfpatch.kernel import Submitted, VerifierError
from bpfpatch.linux.parity.sweep import with_columns
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program
from support.cases.paritycase import load_case
from support.generators.programs import acceptable_case
from support.inputs.bpfobjects import fixture_objects
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel

N_RANDOM = 60
PER_TEST = 30
OBJECTS = {name: data for name, data in fixture_objects() if data[5] == 1}
PIPELINES = {
    "plain": Pipeline.kernel("6.18"),
    "random": Pipeline.kernel("6.18", flags=ProgFlag.TEST_RND_HI32),
    "blinded": Pipeline.kernel("6.18", harden=True),
}


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def assert_same_one_by_one(given: Submitted, pipeline: Pipeline) -> None:
    """A pipeline on one list gives what its passes give, each linearized."""
    target = Target.internal("6.18", btf=kernel.vmlinux_btf())
    at_once = pipeline.run(given.program, target, given.subject).program
    program = given.program
    for one in pipeline.passes:
        program = Pipeline((one,)).run(program, target, given.subject).program
    assert_same(at_once, program)


def assert_same(one: Program, other: Program) -> None:
    """Two programs are the same, with tables and columns."""
    assert one.to_bytes() == other.to_bytes()
    assert one.subprogs.start.tolist() == other.subprogs.start.tolist()
    assert one.tables.keys() == other.tables.keys()
    for name, table in one.tables.items():
        assert table.insn.tolist() == other.tables[name].insn.tolist(), name
        assert table.rows.tolist() == other.tables[name].rows.tolist(), name
    first = ~one.second_slots
    for name, column in one.columns.items():
        if name in other.columns:
            assert np.array_equal(column.values[first], other.columns[name].values[first]), name


def of_object(name: str) -> Iterator[Submitted]:
    """The programs of an object that load."""
    try:
        opened = kernel.KernelObject(ElfObject.parse(OBJECTS[name]), "", None)
    except BpfPatchError as error:
        pytest.skip(f"the original does not load here: {error}")
    with opened:
        for program in opened.autoloaded():
            try:
                loaded = opened.load(program)
            except BpfPatchError:
                continue
            given = kernel.submitted_of(opened, loaded)
            if any(one.type is kernel.MapType.ARENA for one in given.subject.maps):
                pytest.skip("no such case: what is on arena pointers is known from the log alone")
            yield with_columns(loaded, given, "offline")


@pytest.mark.parametrize("name", OBJECTS)
def test_fixtures(name: str) -> None:
    """So it is with the programs of real objects."""
    n_compared = 0
    for given in of_object(name):
        n_compared += 1
        for pipeline in PIPELINES.values():
            assert_same_one_by_one(given, pipeline)
    if not n_compared:
        pytest.skip("the original does not load here: none of its programs does")


@pytest.mark.parametrize("first", range(0, N_RANDOM, PER_TEST))
def test_random_programs(first: int) -> None:
    """So it is with random programs, most of which load."""
    n_compared = 0
    for seed in range(first, first + PER_TEST):
        try:
            loaded, maps = load_case(acceptable_case(seed))
        except VerifierError:
            continue
        with loaded:
            given = with_columns(loaded, kernel.submitted(loaded, maps), "offline")
        pipelines = list(PIPELINES.values())
        assert_same_one_by_one(given, pipelines[seed % len(pipelines)])
        n_compared += 1
    assert n_compared >= PER_TEST // 2
