"""DWARF after an edit is what independent readers expect: pyelftools and LLVM's tools."""

import re
import subprocess

import numpy as np
import pytest

from bpfpatch import Pipeline, isa
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from bpfpatch.patch.relax import Relax
from support.inputs.bpfobjects import fixture_objects
from support.inputs.compiled import compile_bpf
from support.machine.dwarfreaders import (
    complaints,
    listed_lines,
    listed_source,
    moved_lines,
    wrong_lines,
)
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


@pytest.mark.parametrize("clang", ["clang-14", "clang-19", "clang-22"])
def test_objdump_prints_the_same_source(clang, tmp_path):
    """llvm-objdump -S has the same text in front of the same instructions where nops are put in."""
    need("llvm-objdump-22")
    made = compile_bpf(tmp_path, SOURCE, clang=clang)
    before = listed_source(made)
    assert sum(line.startswith(";") for line in before) > 8
    out, _ = Pipeline.parse("sprinkle").run_object(ElfObject.read(made))
    (tmp_path / "sprinkled.o").write_bytes(out.to_bytes())
    assert listed_source(tmp_path / "sprinkled.o") == before


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


FRAMES = """
.cfi_sections .debug_frame
.section "xdp","ax",@progbits
.globl first
.type first,@function
first:
.cfi_startproc
r0 = 1
.cfi_def_cfa 10, 16
r0 = 2
r0 = 3
.cfi_def_cfa_offset 32
.rept 70
r0 += 1
.endr
.cfi_def_cfa_offset 48
exit
.cfi_endproc
.size first, .-first
.section "tc","ax",@progbits
.globl second
.type second,@function
second:
r0 = 0
exit
.size second, .-second
.section .debug_aranges,"",@progbits
.long 60
.short 2
.long 0
.byte 8, 0
.zero 4
.quad first, 592
.quad second, 16
.quad 0, 0
"""


def frames(target, folder):
    """An object of the above, in which a named symbol and advances of both sizes are used."""
    need("clang-19", "llvm-dwarfdump-22")
    source, out = folder / "frames.s", folder / "frames.o"
    source.write_text(FRAMES)
    command = ["clang-19", "-target", target, "-c", source, "-o", out]
    subprocess.run(command, check=True, capture_output=True)
    return ElfObject.read(out)


def dumped(obj, path):
    """Rows of frames, and ranges, as llvm-dwarfdump prints them."""
    obj.write(path)
    command = ["llvm-dwarfdump-22", "--debug-frame", "--debug-aranges", path]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.findall(r"^  (0x\w+): CFA=(.*)$", text, re.MULTILINE), re.findall(
        r"^\[0x0*(\w+), 0x0*(\w+)\)$", text, re.MULTILINE
    )


@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_frames_advance_with_the_code(target, tmp_path):
    """Where each rule starts holding moves; taken out again, nops leave the same bytes."""
    obj = frames(target, tmp_path)
    patches = PatchList(obj.code)
    patches.insert_before(np.arange(len(obj.code)), Body(isa.ja(0)))
    there = patches.linearize()
    wide = obj.with_code(there)
    rows, ranges = dumped(wide, tmp_path / "o")
    assert rows == [
        ("0x0", "unspecified"),
        ("0x10", "W10+16"),
        ("0x30", "W10+32"),
        ("0x490", "W10+48"),
    ]
    assert ranges == [("0", "4a0"), ("0", "20")]
    patches = PatchList(wide.code)
    patches.delete(np.flatnonzero(there.remap.orig < 0))
    assert wide.with_code(patches.linearize()).to_bytes() == obj.to_bytes()


@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_an_address_by_a_symbol_that_left_is_a_tombstone(target, tmp_path):
    """All ones stand for a function's symbol that is gone, and its length is zero."""
    obj = frames(target, tmp_path)
    patches = PatchList(obj.code)
    patches.delete(np.arange(len(obj.code) - 2))
    _, ranges = dumped(obj.with_code(patches.linearize()), tmp_path / "o")
    assert ranges == [("f" * 16, "f" * 16), ("0", "10")]
