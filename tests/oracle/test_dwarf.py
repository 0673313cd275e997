"""DWARF after an edit is what independent readers expect: pyelftools and LLVM's tools."""

import pytest

from bpfpatch import Pipeline
from bpfpatch.elf import ElfObject
from support.inputs.bpfobjects import fixture_objects
from support.machine.dwarfreaders import complaints, wrong_lines
from support.machine.tools import need

OBJECTS = dict(fixture_objects())
NAMES = (
    "xdp_balancer.clang-19.v3.el.g.o",
    "globals.clang-14.v3.eb.g.o",
    "global_funcs.clang-16.v1.el.g.o",
    "many_lines.clang-19.v3.el.g.dwarf4.o",
    "xdp_parse.gcc.v3.el.g.dwarf.o",
    "switches.clang-16.v2.el.g.o1.o",
)
PIPELINES = ("sprinkle", "dce,nops", "cover")


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", NAMES)
def test_dwarf_stays_right(name, pipeline, tmp_path):
    """llvm-dwarfdump finds no more fault than before; each instruction has its site's line."""
    need("llvm-dwarfdump-22")
    obj = ElfObject.parse(OBJECTS[name])
    out, result = Pipeline.parse(pipeline).run_object(obj)
    assert not [notice for notice in out.notices if "removed" in notice]
    if ".gcc." not in name:  # on which llvm-dwarfdump --verify does not come to an end
        assert complaints(out, tmp_path / "o") == complaints(obj, tmp_path / "o")
    assert wrong_lines(obj, out, result.remap.site) == []
