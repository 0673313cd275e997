"""Counting changes nothing else: originals verified against what counts."""

from __future__ import annotations

import pytest

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline
from bpfpatch.verify import Bounds, verify
from support.inputs.bpfobjects import fixture_path

OBJECTS = (
    "xdp_parse.clang-19.v3.el.g.o",
    "tail_calls.clang-19.v3.el.g.o",
    "globals.clang-19.v3.el.g.o",
)


@pytest.mark.parametrize("options", ["edges=true", "count=plain", "edges=true,count=percpu"])
@pytest.mark.parametrize("name", OBJECTS)
def test_counting_changes_nothing_else(name: str, options: str) -> None:
    """Results, packets, maps and helper calls stay; a counters' map is all that is new."""
    obj = ElfObject.read(fixture_path(name))
    made, result = Pipeline.parse(f"cover{{{options}}}").run_object(obj)
    info = obj.programs[0]
    verdict = verify(
        obj.link(info.name),
        made.link(info.name),
        obj=obj,
        after_obj=made,
        provenance=result,
        bounds=Bounds(seconds=2.0),
    )
    assert verdict.differs is False, str(verdict)
