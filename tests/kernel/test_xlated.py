"""Programs read back from the kernel, and what their loader knew of them."""

from __future__ import annotations

import numpy as np
import pytest

from bpfpatch import asm, isa, kernel
from bpfpatch.btf import Kind
from bpfpatch.linux.log.auxload import with_aux
from bpfpatch.passes import Pipeline, Target
from bpfpatch.program import Program, validate
from support.cases.lined import with_lines
from support.inputs.bpfobjects import fixture_path
from support.machine.tools import need_bpf

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def test_calls_are_references_again() -> None:
    """A subprog call's distance and each subprog's start, without func_info to tell them."""
    text = "r6 = r1; call two; r1 = r6; call one; exit; one: w0 = *(u32 *)(r1 + 0); exit"
    program = asm.assemble(text + "; two: call one; w0 /= w0; exit")
    with kernel.load(program, prog_type="sched_cls") as loaded:
        read = kernel.read_xlated(loaded).program
    assert read.subprogs.start.tolist() == [0, 5, 7]
    calls = read.refs.is_entry
    assert read.refs.target[calls].tolist() == [7, 5, 5]
    validate(read)


def test_what_is_called_has_its_names() -> None:
    """By the kernel's own list of functions; a tail call has no address."""
    with kernel.Map.create("prog_array", 4, 4, 4) as programs:
        text = f"r6 = r1; call bpf_ktime_get_ns; r1 = r6; ld_pseudo r2, 1, {programs.fd}"
        text += "; r3 = r0; call bpf_tail_call; r0 = 0; exit"
        with kernel.load(asm.assemble(text), prog_type="sched_cls") as loaded:
            read = kernel.read_xlated(loaded)
        wanted = programs.info().id
    names = list(read.call_names.values())
    assert "bpf_ktime_get_ns" in names[0]
    assert names[1] == {"bpf_tail_call"}
    assert read.map_ids[read.map_ids >= 0].tolist() == [wanted]


def test_a_kernel_made_callback_has_its_place() -> None:
    """A program that throws gets an exception callback that nothing refers to."""
    found = kernel.vmlinux_btf().find("bpf_throw", Kind.FUNC)
    if not found:
        pytest.skip("not on this kernel: it has no bpf_throw")
    insns = [isa.call_subprog(1), isa.exit_(), isa.mov(isa.R1, 0), isa.call_kfunc(found[0])]
    program = Program(isa.concat([*insns, isa.exit_()]))
    with kernel.load(program, prog_type="sched_cls") as loaded:
        read = kernel.read_xlated(loaded)
    starts = read.program.subprogs.start
    assert starts.size == 3
    assert read.hidden.tolist() == [starts[2]]
    tail = read.raw[starts[2] :]
    assert (tail == isa.concat([isa.mov(isa.R0, isa.R1), isa.exit_()])).all()


NO_ROUNDS = """
    r1 = 0
    r2 = cb ll
    r3 = 0
    r4 = 0
    call bpf_loop
    r0 = 0
    exit
cb:
    r0 = 0
    exit
"""


def test_a_callback_that_is_gone_leaves_its_call_behind() -> None:
    """A loop of no rounds is written out, then its callback removed: the call leads nowhere."""
    program, btf = with_lines(asm.assemble(NO_ROUNDS))
    with kernel.load(program, prog_type="sched_cls", btf=btf) as loaded:
        read = kernel.read_xlated(loaded)
    insns, external = read.program.insns, read.program.external
    assert read.program.subprogs.start.tolist() == [0]
    assert (
        external.tolist()
        == np.flatnonzero(
            isa.is_subprog_call(insns) | (isa.is_ld_imm64(insns) & (isa.src(insns) == 4))
        ).tolist()
    )
    assert (external + 1 + insns["imm"][external]).tolist() == [len(insns)] * 2
    assert not np.isin(read.program.refs.slot, external).any()


def test_our_pipeline_leaves_nothing_that_leads_nowhere() -> None:
    """In place of that call, which cannot run, we have ``r0 = 0``, and 0 for the address."""
    program, btf = with_lines(asm.assemble(NO_ROUNDS))
    with kernel.load(program, prog_type="sched_cls", btf=btf, log_level=6, keep_log=True) as loaded:
        given = with_aux(loaded, kernel.submitted(loaded)).submitted
        read = kernel.read_xlated(loaded)
    target = Target.internal(btf=kernel.vmlinux_btf())
    ours = Pipeline.kernel("6.18").run(given.program, target, given.subject).program
    address, call = read.program.external.tolist()
    assert (ours.insns[address : address + 2] == isa.ld_imm64(isa.R2, 0)).all()
    assert (ours.insns[call : call + 1] == isa.mov(isa.R0, 0)).all()
    rest = np.delete(np.arange(len(ours)), [address, address + 1, call])
    assert (ours.insns[rest] == read.raw[rest]).all()


@pytest.mark.parametrize(
    ("name", "program"),
    [("callbacks.clang-19.v3.el.g.o", "loops"), ("exceptions.clang-19.v3.el.g.o", "thrower")],
)
def test_an_objects_subprogs_are_those_of_func_info(name: str, program: str) -> None:
    """Every call and function address leads to one of them."""
    with kernel.open_object(fixture_path(name), [program]) as opened:
        loaded = opened.programs[program]
        read = kernel.read_xlated(loaded).program
        assert read.subprogs.start.tolist() == loaded.info().func_info["insn_off"].tolist()
    assert np.isin(read.refs.target[read.refs.is_entry], read.subprogs.start).all()
    assert read.tables["line_info"].insn[0] == 0


def test_a_subject_has_the_objects_maps() -> None:
    """With constants where nobody can change them, and types where they have some."""
    with kernel.open_object(fixture_path("globals.clang-19.v3.el.g.o"), ["use_globals"]) as opened:
        what = kernel.submitted_of(opened, opened.programs["use_globals"])
        ids = [made.info().id for made in opened.maps.values()]
        fds = [made.fd for made in opened.maps.values()]
    maps = {facts.name: facts for facts in what.subject.maps}
    assert what.map_ids.tolist() == ids
    assert maps[".rodata"].content is not None
    assert len(maps[".rodata"].content) == maps[".rodata"].value_size
    assert maps[".bss"].content is None
    assert maps[".bss"].btf is not None
    assert maps[".bss"].value_type_id in maps[".bss"].btf.find(".bss", Kind.DATASEC)
    index = what.program.columns["ld_map"].values
    sites = np.flatnonzero(index >= 0)
    assert sites.size
    assert [fds[one] for one in index[sites]] == what.program.insns["imm"][sites].tolist()


def test_a_subject_says_what_an_outer_map_holds() -> None:
    """The kernel tells nobody; it is known from when the map was made."""
    with (
        kernel.Map.create("hash", 4, 16, 8) as inner,
        kernel.Map.create("array_of_maps", 4, 4, 2, inner=inner) as outer,
        kernel.load(asm.assemble("r0 = 0; exit"), prog_type="xdp", license="none") as loaded,
    ):
        subject = kernel.submitted(loaded, [outer]).subject
    assert subject.prog_type is kernel.ProgType.XDP
    assert not subject.is_gpl
    assert subject.maps[0].inner is subject.maps[1]
    assert (subject.maps[1].type, subject.maps[1].value_size) == (kernel.MapType.HASH, 16)
