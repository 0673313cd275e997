"""The public example's result loads, and answers as the original does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from support.inputs.bpfobjects import fixture_path
from support.machine.bpfloads import answers, listing, loaded_bytes
from support.machine.tools import need_bpf
from support.session.plugins import EXAMPLES, load_plugin

pytestmark = pytest.mark.kernel

OBJECTS = ["xdp_balancer", "xdp_count", "tc_rewrite", "redirects", "map_in_map"]


@pytest.mark.parametrize("source", OBJECTS)
@pytest.mark.parametrize("pipeline", ["count-calls", "count-calls{prints=false},sprinkle,dce"])
def test_counted_object_answers_as_before(
    source: str, pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a counter in every function, each program gives the same verdicts and packets."""
    need_bpf()
    load_plugin(EXAMPLES / "count_calls.py", monkeypatch)
    before = ElfObject.parse(fixture_path(f"{source}.clang-19.v3.el.g.o").read_bytes())
    after = before.with_code(Pipeline.parse(pipeline).run(before.code))
    with loaded_bytes(before.to_bytes(), tmp_path) as what:
        wanted = {name: answers(pin) for name, pin in what.pins.items()}
        n_before = sum(len(listing(pin).code) for pin in what.pins.values())
    with loaded_bytes(after.to_bytes(), tmp_path) as what:
        assert {name: answers(pin) for name, pin in what.pins.items()} == wanted
        assert sum(len(listing(pin).code) for pin in what.pins.values()) > n_before
