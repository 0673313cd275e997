"""Shrinking with the running kernel as judge."""

from __future__ import annotations

import json

import pytest

from bpfpatch import kernel
from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from bpfpatch.shrink import shrink_object
from bpfpatch.verify import Bounds, verify_objects
from support.inputs.bpfobjects import fixture_objects
from support.inputs.compiled import compile_bpf

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


FEATURE = """
struct { UINT(type, MAP_HASH); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, 1024); }
rare SEC(".maps");
struct { UINT(type, MAP_ARRAY); TYPE(key, u32); TYPE(value, u64); UINT(max_entries, 1); }
often SEC(".maps");
const volatile _Bool use_rare = 1;
static HELPER(1, void *, lookup, void *, const void *);
__attribute__((noinline)) static int expensive(u32 key) {
    u64 *found = lookup(&rare, &key);
    return found ? *found : 7;
}
SEC("tc") int run(struct __sk_buff *skb) {
    u32 zero = 0;
    u64 *count = lookup(&often, &zero);
    if (use_rare) return expensive(skb->mark);
    return count ? ++*count : 0;
}
char _license[] SEC("license") = "GPL";
"""


def test_a_feature_that_is_switched_off_is_gone(tmp_path) -> None:
    """With its switch settled, its function and its map are in neither object nor kernel."""
    obj = ElfObject.read(compile_bpf(tmp_path, FEATURE)).with_values({"use_rare": False})
    made, _ = Pipeline.parse("const,dce{maps=true},shrink").run_object(obj)
    assert {one.name for one in made.functions} == {"run"}
    with kernel.open_object(made) as opened:
        assert set(opened.maps) == {"often"}
        with opened.load("run") as loaded:
            assert len(loaded.info().map_ids) == 1
            assert [loaded.test_run(bytes(64)).retval for _ in range(2)] == [1, 2]
