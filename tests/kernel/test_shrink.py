"""Shrinking with the running kernel as judge."""

from __future__ import annotations

import json

import pytest

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.shrink import shrink_object
from bpfpatch.verify import Bounds, verify_objects
from support.inputs.bpfobjects import fixture_objects

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(kernel.available() is not None, reason=str(kernel.available())),
]
OBJECTS = dict(fixture_objects())
NAMES = ("xdp_balancer.clang-19.v3.el.g.o", "stack_heavy.clang-19.v3.el.g.o")


@pytest.mark.parametrize("name", NAMES)
def test_shrunk_object_loads_and_does_the_same(name: str) -> None:
    """What loaded loads, costs the verifier no more than 1 % more, and behaves as before."""
    before = ElfObject.parse(OBJECTS[name])
    done = shrink_object(before, name=name)
    assert done.report.programs
    for row in done.report.programs:
        assert row.verified_before is not None, row.reason
        assert row.verified_after is not None
        assert row.verified_after <= 1.01 * row.verified_before
    assert done.report.slots_after < done.report.slots_before
    for verdict in verify_objects(
        before, done.obj, provenance=done.result, bounds=Bounds(seconds=1.0, runs=200)
    ):
        assert not verdict.differs, str(verdict)


def test_command_writes_and_reports(tmp_path) -> None:
    """The command writes the object, and its JSON says what the verifier looked at."""
    pytest.importorskip("click")
    from click.testing import CliRunner

    from bpfpatch.cli.app import cli

    source, out = tmp_path / "a.o", tmp_path / "b.o"
    source.write_bytes(OBJECTS[NAMES[0]])
    done = CliRunner().invoke(cli, ["shrink", str(source), "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert len(ElfObject.read(str(out)).code) == report["insns_after"] < report["insns_before"]
    assert all(one["verified_after"] for one in report["programs"])
