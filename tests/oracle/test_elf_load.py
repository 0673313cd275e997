"""Stock libbpf (bpftool) loads what we write wherever it loads the original."""

import subprocess
import uuid

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import debian_objects, fixture_objects, fixture_path
from support.machine.tools import BPFFS, need_bpf

pytestmark = pytest.mark.kernel


def objects():
    """Little-endian objects by name."""
    found = [*fixture_objects(), *debian_objects()]
    return {name: data for name, data in found if data[5] == 1}


def loads(path):
    """Whether bpftool loads an object, and what it says if not.

    Without a place for all maps: those that ask for a pin of their own get one,
    which is removed here.
    """
    pin = BPFFS / f"bpfpatch_load_{uuid.uuid4().hex[:8]}"
    before = set(BPFFS.iterdir())
    command = ["bpftool", "prog", "loadall", str(path), str(pin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    own = {info.name for info in ElfObject.read(path).maps}
    left = [entry for entry in set(BPFFS.iterdir()) - before if entry.name in own]
    for entry in [*pin.glob("*"), *left]:
        entry.unlink()
    if pin.exists():
        pin.rmdir()
    return done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", objects())
def test_what_loads_still_loads_with_a_nop_before_every_instruction(name, tmp_path):
    """An object with ja +0 before each instruction loads if the original does."""
    need_bpf()
    data = objects()[name]
    original, patched = tmp_path / "original.o", tmp_path / "patched.o"
    original.write_bytes(data)
    does_load, why = loads(original)
    if not does_load:
        said = [line for line in why.splitlines() if line.startswith("libbpf: ")] or [why[:60]]
        pytest.skip(
            f"bpftool does not load the original: {said[0].replace(str(original), name)[8:70]}"
        )
    obj = ElfObject.parse(data)
    patches = PatchList(obj.code)
    patches.insert_before(np.flatnonzero(~obj.code.second_slots), Body(isa.ja(0)))
    obj.with_code(patches.linearize()).write(patched)
    does_load, why = loads(patched)
    assert does_load, why[-2000:]


def without(data, name):
    """The object without one function; calls of it give 0 instead."""
    obj = ElfObject.parse(data)
    code = obj.code
    start = code.subprogs.start[code.subprogs.names.index(name)]
    calls = code.refs.slot[code.refs.is_entry & (code.refs.target == start)]
    patches = PatchList(code)
    if calls.size:
        patches.insert_before(calls, Body(isa.mov(0, 0)))
        patches.delete(calls)
    patches.delete_subprog(name)
    return obj.with_code(patches.linearize())


@pytest.mark.parametrize(
    ("name", "subprog"),
    [
        (f"{name}.clang-19.v3.el.g.o", subprog)
        for name in ("xdp_parse", "xdp_balancer", "global_funcs", "many_lines", "cgroup")
        for subprog in ElfObject.read(
            fixture_path(f"{name}.clang-19.v3.el.g.o")
        ).code.subprogs.names
    ],
)
def test_what_loads_still_loads_without_a_function(name, subprog, tmp_path):
    """An object from which a function was deleted, with its records and symbols, loads."""
    need_bpf()
    if len(ElfObject.read(fixture_path(name)).programs) == 1:
        main = ElfObject.read(fixture_path(name)).programs[0].name
        if main == subprog:
            pytest.skip("no such case: there would be no program left")
    patched = tmp_path / "patched.o"
    without(fixture_path(name).read_bytes(), subprog).write(patched)
    does_load, why = loads(patched)
    assert does_load, why[-2000:]
