"""DWARF after an edit is what independent readers expect: pyelftools and LLVM's tools."""

import numpy as np
import pytest

from bpfpatch import Pipeline, isa
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from bpfpatch.patch.relax import Relax
from support.inputs.bpfobjects import fixture_objects
from support.inputs.compiled import compile_bpf
from support.machine.dwarfreaders import complaints, listed_lines, moved_lines, wrong_lines
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
    assert moved_lines(obj, out, result.remap.site, tmp_path / "o") == []


@pytest.mark.parametrize("name", NAMES[:4])
def test_objdump_prints_the_same_lines(name, tmp_path):
    """llvm-objdump -l goes through the same lines in the same order where code was put in."""
    need("llvm-objdump-22")
    obj = ElfObject.parse(OBJECTS[name])
    out, _ = Pipeline.parse("sprinkle").run_object(obj)
    lines = listed_lines(obj, tmp_path / "o")
    assert lines
    assert listed_lines(out, tmp_path / "o") == lines


def test_an_island_has_the_line_of_its_jump():
    """What relaxation puts in the middle of other code still is of the jump's line."""
    obj = ElfObject.parse(OBJECTS["switches.clang-19.v3.el.g.o"])
    done = PatchList(obj.code).linearize(Relax("islands", 20))
    assert (np.diff(done.remap.site) < 0).any()
    out = obj.with_code(done)
    assert wrong_lines(obj, out, done.remap.site) == []


SOURCE = """
static __attribute__((noinline)) int sum(int *p, int n)
{
    int s = 0;
    for (int i = 0; i < n; i++)
        s += p[i & 3] * n;
    return s;
}

static inline __attribute__((always_inline)) int mixed(int x)
{
    if (x > 3) {
        int y = x * 17;
        return y ^ x;
    }
    return x;
}

SEC("xdp") int prog(void *ctx)
{
    int a[4] = {1, 2, 3, *(int *)ctx};
    return mixed(a[3]) + sum(a, a[3]);
}

SEC("tc") int other(void *ctx)
{
    int a[4] = {*(int *)ctx, 2, 3, 1};
    return mixed(a[0] + 1) + sum(a, 3);
}
"""
FORMS = (
    ("clang-14", "-gdwarf-4", "-gdwarf64"),
    ("clang-16", "-gdwarf-2"),
    ("clang-19", "-gdwarf-5", "-gdwarf64"),
    ("clang-19", "-gdwarf-3", "-gdwarf-aranges"),
    ("clang-22", "-gdwarf-5"),
    ("clang-22", "-gdwarf-5", "-mllvm", "-minimize-addr-in-v5=Ranges"),
    ("clang-22", "-gdwarf-5", "-mbig-endian", "-gdwarf64", "-fdebug-macro"),
    ("clang-22", "-gdwarf-4", "-fdebug-types-section", "-ffunction-sections"),
)


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_every_form_that_clang_has(form, tmp_path):
    """Versions, formats, byte orders and sections: nops put in keep lines, and out, all bytes."""
    need("llvm-dwarfdump-22", "llvm-symbolizer-22")
    clang, *flags = form
    made = compile_bpf(tmp_path, SOURCE, clang=clang, flags=("-g", *flags))
    obj = ElfObject.read(made)
    patches = PatchList(obj.code)
    patches.insert_before(np.flatnonzero(~obj.code.second_slots), Body(isa.ja(0)))
    there = patches.linearize()
    wide = obj.with_code(there)
    assert wide.notices[0].startswith("updated DWARF")
    assert complaints(wide, tmp_path / "o") == complaints(obj, tmp_path / "o")
    assert wrong_lines(obj, wide, there.remap.site) == []
    assert moved_lines(obj, wide, there.remap.site, tmp_path / "o") == []
    patches = PatchList(wide.code)
    patches.delete(np.flatnonzero(there.remap.orig < 0))
    assert wide.with_code(patches.linearize()).to_bytes() == obj.to_bytes()
