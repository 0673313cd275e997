"""Whole objects: what bpftool loads loads here too, comes out the same, and answers the same."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import isa, kernel
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError, OptionError, UnsupportedError
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import (
    debian_objects,
    fixture_objects,
    fixture_path,
    xdp_tools_objects,
)
from support.inputs.packets import SKB_SAMPLES
from support.machine.tools import BpftoolError, bpf_run, loaded, need_bpf, xlated

pytestmark = pytest.mark.kernel

MIN_PACKET = 14
RANDOM_ORDER = "callbacks"  # walks a hash map, whose order the kernel draws for each map


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def objects() -> dict[str, bytes]:
    """Little-endian objects by name."""
    found = [*fixture_objects(), *debian_objects()]
    return {name: data for name, data in found if data[5] == 1}


def masked(insns: isa.Insns) -> isa.Insns:
    """Instructions without map ids and the kernel's addresses, which differ from load to load."""
    out = insns.copy()
    loads = np.flatnonzero(out["code"] == isa.LD_IMM64)
    src = isa.src(out)[loads]
    out["imm"][loads[src != 3]] = 0
    out["imm"][loads[src == 0] + 1] = 0
    return out


@pytest.mark.parametrize("name", objects())
def test_an_object_comes_out_as_with_bpftool(name: str, tmp_path: Path) -> None:
    """Of an object that bpftool loads each program loads, is xlated the same, answers the same.

    Another one loads, too, or is refused in words.
    """
    path = tmp_path / (name if name.endswith(".o") else f"{name}.o")
    path.write_bytes(objects()[name])
    try:
        theirs = loaded(path)
        pinned = theirs.__enter__()
    except BpftoolError:
        with contextlib.suppress(BpfPatchError):
            kernel.open_object(path).close()
        pytest.skip("bpftool does not load the original: loaded or refused in words, as it should")
    try:
        with kernel.open_object(path) as opened:
            assert set(opened.programs) == set(pinned.pins)
            for program, prog in opened.programs.items():
                compare(prog, pinned.pins[program], runs=not name.startswith(RANDOM_ORDER))
    finally:
        theirs.__exit__(None, None, None)


def compare(prog: kernel.LoadedProgram, pin: Path, *, runs: bool) -> None:
    """Raise unless a program and a pinned one are the same."""
    mine, other = prog.xlated(), isa.from_bytes(xlated(pin))
    assert masked(mine).tobytes() == masked(other).tobytes(), prog.name
    if kernel.run_input(prog.type) != "data" or not runs:
        return
    for packet in SKB_SAMPLES.values():
        if len(packet) >= MIN_PACKET:
            assert answer(prog, packet) == pinned_answer(pin, packet)


def answer(prog: kernel.LoadedProgram, packet: bytes) -> tuple[int, bytes] | int | None:
    """A run's verdict and packet, or the error's number."""
    try:
        ran = prog.test_run(packet)
    except kernel.KernelError as error:
        return error.errno
    return ran.retval, ran.data


def pinned_answer(pin: Path, packet: bytes) -> tuple[int, bytes] | int | None:
    """The same of a pinned program."""
    try:
        ran = bpf_run(pin, packet)
    except OSError as error:
        return error.errno
    return ran.retval, ran.data


def test_all_of_libxdp_loads() -> None:
    """All of Debian's libxdp objects load, but the one that needs a target to trace."""
    found = xdp_tools_objects()
    if not found:
        pytest.skip("not installed: libxdp1")
    failed = {}
    for name, data in found:
        try:
            kernel.open_object(ElfObject.parse(data)).close()
        except BpfPatchError as error:
            failed[name] = str(error)
    assert set(failed) <= {"xdpdump_bpf.o"}, failed


def test_a_rewritten_program_loads_with_its_objects_maps() -> None:
    """What a patch list gave goes in, with records, relocations and CO-RE moved along."""
    obj = ElfObject.read(str(fixture_path("core_relo.clang-19.v3.el.g.o")))
    for info in obj.programs:
        linked = obj.link(info.name)
        patches = PatchList(linked.program)
        patches.insert_before(np.flatnonzero(~linked.program.second_slots), Body(isa.ja(0)))
        with kernel.open_object(obj, []) as opened:
            before = opened.load(info.name)
            after = opened.load(linked.with_code(patches.linearize()))
            assert masked(after.xlated()).tobytes() == masked(before.xlated()).tobytes()


def test_what_is_applied_holds_on_to_nothing() -> None:
    """Relocations and CO-RE records are gone from what was submitted: its code may change."""
    with kernel.open_object(str(fixture_path("core_relo.clang-19.v3.el.g.o")), []) as opened:
        info = opened.obj.programs[0]
        linked = opened.obj.link(info.name)
        assert len(linked.core_relo)
        with opened.load(info.name) as loaded:
            submitted = kernel.submitted_of(opened, loaded).program
    assert {"core_relo", "reloc"} <= linked.program.tables.keys()
    assert submitted.tables.keys() == linked.program.tables.keys() - {"core_relo", "reloc"}
    patches = PatchList(submitted)
    patches.replace(linked.program.tables["core_relo"].insn, Body(isa.mov(isa.R0, 0)))
    patches.linearize()


@pytest.mark.parametrize(
    "name",
    [
        "exceptions.clang-19.v3.el.g.o",
        "kfuncs.clang-19.v3.el.g.o",
        "legacy_maps.clang-19.v3.el.g.o",
        "same_section.clang-19.v3.el.g.o",
    ],
)
def test_more_loads_than_with_old_libbpf(name: str) -> None:
    """Exceptions, kfuncs, legacy maps, and several programs in one section load."""
    with kernel.open_object(fixture_path(name)) as opened:
        assert opened.programs


def test_poison_is_reported_at_its_line() -> None:
    """A CO-RE record that the kernel cannot satisfy is refused where it is reached."""
    objs = {name: data for name, data in debian_objects() if name == "runqlen"}
    if not objs:
        pytest.skip("not installed: libbpf-tools")
    with pytest.raises(kernel.VerifierError, match=r"runqlen.bpf.c:\d+.*invalid func") as caught:
        kernel.open_object(ElfObject.parse(objs["runqlen"]))
    assert "do_sample" in "".join(caught.value.__notes__)


def test_big_endian_objects_are_refused() -> None:
    """An object of the other byte order is refused in words, before anything is made."""
    data = dict(fixture_objects())["core_relo.clang-19.v2.eb.g.o"]
    with pytest.raises(UnsupportedError, match="big-endian"):
        kernel.open_object(ElfObject.parse(data))


def test_names_are_checked() -> None:
    """A program that the object does not have is named, with those that it has."""
    path = fixture_path("xdp_count.clang-19.v3.el.g.o")
    with pytest.raises(OptionError, match=r"no program 'nothing'; there are: \w+"):
        kernel.open_object(path, ["nothing"])


def test_untyped_sections_want_a_type() -> None:
    """Where a section does not tell, a type must be given, and works."""
    path = fixture_path("iproute2_maps.clang-19.v3.el.g.o")
    with pytest.raises(OptionError, match="give prog_type"):
        kernel.open_object(path)
    with kernel.open_object(path, prog_type="sched_cls") as opened:
        assert set(opened.programs) == {"jumped", "entry"}
