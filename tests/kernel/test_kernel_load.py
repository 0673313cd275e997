"""Loading flat programs: what goes in, what comes back, what the verifier says."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import asm, isa, kernel
from bpfpatch.bpf import submit
from bpfpatch.bpf.syscall import Cmd, bpf
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.patch import Body, PatchList
from support.inputs.bpfobjects import fixture_path
from support.inputs.packets import SAMPLES
from support.machine.tools import bpf_allowed, need_bpf

pytestmark = pytest.mark.kernel

PACKET = bytes(64)
ENOTSUPP = 524


@pytest.fixture(autouse=True)
def _bpf() -> None:
    need_bpf()


def open_fds() -> int:
    """Descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_program_runs() -> None:
    """What r0 holds at the exit is what a run returns."""
    with kernel.load(asm.assemble("r0 = 7; exit")) as prog:
        ran = prog.test_run(PACKET, repeat=3)
    assert (ran.retval, ran.data) == (7, PACKET)


def test_xlated_is_what_was_loaded() -> None:
    """A program that the verifier has no reason to change comes back as it went in."""
    program = asm.assemble("r0 = 7; r1 = 5; r0 += r1; exit")
    with kernel.load(program, name="plain") as prog:
        assert prog.xlated().tobytes() == program.insns.tobytes()
        info = prog.info()
        image = prog.jited()
    assert info.name == "plain"
    assert info.type is kernel.ProgType.SOCKET_FILTER
    assert info.xlated_len == 4
    assert info.verified_insns == 4
    assert info.is_gpl
    if "jit" in kernel.probe().features:
        assert len(image) == info.jited_len == int(info.jited_lens.sum()) > 0


def test_the_verifiers_refusal_names_the_place() -> None:
    """The error has the complaint in one line, the instruction, and the log."""
    with pytest.raises(kernel.VerifierError) as caught:
        kernel.load(asm.assemble("r1 = 1; r0 = *(u64 *)(r3 + 0); exit"))
    error = caught.value
    assert (error.slot, error.name, error.message) == (1, "EACCES", "R3 !read_ok")
    assert str(error).startswith("insn 1")
    assert "processed 2 insns" in error.log


def test_the_refusal_names_the_source_line(tmp_path: object) -> None:
    """Of a program with line info the error says which source line the instruction is from."""
    obj = ElfObject.parse(fixture_path("xdp_count.clang-19.v3.el.g.o").read_bytes())
    name = obj.programs[0].name
    linked = obj.link(name)
    patches = PatchList(linked.program)
    patches.insert_before(1, Body.asm("r0 = *(u64 *)(r9 + 0)"))
    broken = linked.with_code(patches.linearize())
    with (
        kernel.open_object(obj, []) as opened,
        pytest.raises(kernel.VerifierError, match=r"xdp_count.c:\d+") as caught,
    ):
        opened.load(broken)
    assert caught.value.slot == 1
    assert caught.value.message == "R9 !read_ok"


def test_the_log_grows_as_needed() -> None:
    """A log of many megabytes comes whole: its first and its last line are there."""
    count = 20_000
    program = isa.concat(
        [isa.mov(isa.R0, 0), *[isa.alu("add", isa.R0, 1)] * count, isa.mov(isa.R1, isa.R9)]
    )
    insns = np.concatenate([program, isa.exit_()])
    from bpfpatch.program import Program

    with pytest.raises(kernel.VerifierError) as caught:
        kernel.load(Program(insns), log_level=2)
    assert caught.value.slot == count + 1
    assert len(caught.value.log) > 1 << 20
    assert caught.value.log.startswith("func#0 @0\n")
    assert "\n0: (b7) r0 = 0" in caught.value.log


def test_program_that_takes_too_many_steps_is_refused_without_a_list_of_them() -> None:
    """Where no single instruction is to blame, the complaint is enough, and takes no time."""
    program = asm.assemble("""
        r6 = 0
    again:
        r6 += 1
        if r6 < 2000000 goto again
        r0 = 0
        exit
    """)
    with pytest.raises(kernel.VerifierError, match=r"too large\. Processed 1000001 insn") as caught:
        kernel.load(program)
    assert len(caught.value.log) < 1 << 12


def test_end_of_a_long_log_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log that has no room the complaint is there, and the kernel's own error number."""
    monkeypatch.setattr(submit, "_LOG_TAIL", 1 << 12)
    lines = ["r0 += 1"] * 2000
    program = asm.assemble("\n".join(["r0 = 0", *lines, "r0 = *(u64 *)(r9 + 0)", "exit"]))
    with pytest.raises(kernel.VerifierError, match="R9 !read_ok") as caught:
        kernel.load(program)
    assert (caught.value.slot, caught.value.errno) == (2001, errno.EACCES)
    assert len(caught.value.log) < 1 << 12


def test_a_log_can_be_kept() -> None:
    """The log of a program that loads is kept on request only."""
    program = asm.assemble("r0 = 7; exit")
    with kernel.load(program, keep_log=True, log_level=2) as kept, kernel.load(program) as silent:
        assert "(b7) r0 = 7" in kept.log
        assert silent.log == ""


def test_handles_close() -> None:
    """No descriptor is left: not after a block, an error, or when nobody holds the handle."""
    kernel.probe()
    gc.collect()
    before = open_fds()
    with kernel.load(asm.assemble("r0 = 0; exit")) as prog:
        assert open_fds() == before + 1
    assert prog.is_closed
    prog.close()
    with pytest.raises(kernel.VerifierError):
        kernel.load(asm.assemble("r0 = r9; exit"))
    kernel.Map.create("array")
    gc.collect()
    assert open_fds() == before


@pytest.mark.parametrize("name", ["xdp_balancer", "globals", "map_in_map", "tail_calls"])
def test_objects_close(name: str) -> None:
    """An object's maps, types and programs are all closed, also when a program is refused."""
    path = fixture_path(f"{name}.clang-19.v3.el.g.o")
    with kernel.open_object(path):
        pass
    gc.collect()
    before = open_fds()
    with kernel.open_object(path):
        assert open_fds() > before
    with pytest.raises(kernel.KernelError):
        kernel.open_object(path, prog_type="sk_lookup")
    gc.collect()
    assert open_fds() == before


def test_descriptors_are_not_inherited() -> None:
    """A child process does not get the program."""
    with kernel.load(asm.assemble("r0 = 0; exit")) as prog:
        assert not os.get_inheritable(prog.fd)


def test_packets_may_grow() -> None:
    """A program that makes room gives back a longer packet."""
    text = "r2 = -14; call 44; r0 = 2; exit"  # xdp_adjust_head
    with kernel.load(asm.assemble(text), prog_type="xdp") as prog:
        ran = prog.test_run(SAMPLES["arp"])
    assert ran.retval == 2
    assert len(ran.data) == len(SAMPLES["arp"]) + 14
    assert ran.data[14:] == SAMPLES["arp"]


def test_a_context_goes_in_and_out() -> None:
    """A packet's context is changed by the program and comes back."""
    text = "r2 = 77; *(u32 *)(r1 + 8) = r2; r0 = 0; exit"  # __sk_buff.mark
    ctx = bytearray(192)
    struct.pack_into("=I", ctx, 8, 5)
    with kernel.load(asm.assemble(text), prog_type="sched_cls") as prog:
        ran = prog.test_run(PACKET, bytes(ctx))
    assert struct.unpack_from("=I", ran.ctx, 8) == (77,)


def test_a_context_alone() -> None:
    """A syscall program gets no packet, and changes its context in place."""
    text = "r2 = *(u64 *)(r1 + 0); r2 += 1; *(u64 *)(r1 + 8) = r2; r0 = 3; exit"
    flags = kernel.ProgFlag.SLEEPABLE
    with kernel.load(asm.assemble(text), prog_type="syscall", flags=flags) as prog:
        ran = prog.test_run(ctx=struct.pack("=QQ", 41, 0))
        assert (ran.retval, ran.ctx) == (3, struct.pack("=QQ", 41, 42))
        with pytest.raises(kernel.KernelError, match="takes no packet"):
            prog.test_run(PACKET)
        with pytest.raises(kernel.KernelError, match="once a call, not 5 times"):
            prog.test_run(ctx=bytes(16), repeat=5)


RUNS = sorted(kind.text for kind in kernel.ProgType if kernel.run_input(kind) in ("data", "ctx"))


@pytest.mark.parametrize("prog_type", RUNS)
def test_types_that_run(prog_type: str) -> None:
    """A type that `run_input` knows an input for runs on it."""
    if not kernel.has_prog_type(prog_type):
        pytest.skip(f"not on this kernel: {prog_type} programs do not load")
    wants = kernel.run_input(kernel.ProgType.of(prog_type))
    attach = prog_type if prog_type in ("netfilter", "sk_lookup") else None
    flags = kernel.ProgFlag.SLEEPABLE if prog_type == "syscall" else 0
    # A socket look-up wants a protocol family, at byte 8, and a protocol.
    ctx = struct.pack("=QII", 0, socket.AF_INET, socket.IPPROTO_TCP).ljust(64, b"\0")
    program = asm.assemble("r0 = 1; exit")
    with kernel.load(program, prog_type=prog_type, attach_type=attach, flags=flags) as prog:
        packet = SAMPLES["tcp_elsewhere"] if wants == "data" else b""
        assert prog.test_run(packet, ctx if wants == "ctx" else b"").retval in (0, 1)


def test_the_other_types_do_not_run() -> None:
    """Of a type that `run_input` knows nothing of the kernel itself says that it does not run."""
    program = asm.assemble("r0 = 0; exit")
    for kind in kernel.probe().prog_types:
        if kernel.run_input(kind):
            continue
        attach = {"cgroup_sock_addr": "cgroup_inet4_connect", "cgroup_sockopt": "cgroup_getsockopt"}
        with kernel.load(program, prog_type=kind, attach_type=attach.get(kind.text)) as prog:
            with pytest.raises(OSError, match="524") as caught:
                bpf(Cmd.PROG_TEST_RUN, prog_fd=prog.fd)
            assert caught.value.errno == ENOTSUPP


def test_types_without_a_run_say_so() -> None:
    """A kprobe cannot be run this way, and a packet must have an Ethernet header's length."""
    program = asm.assemble("r0 = 0; exit")
    with (
        kernel.load(program, prog_type="kprobe") as prog,
        pytest.raises(kernel.KernelError, match="kprobe program cannot be run"),
    ):
        prog.test_run(PACKET)
    with kernel.load(program) as prog, pytest.raises(kernel.KernelError, match="at least 14"):
        prog.test_run(b"short")


def test_unlinked_code_is_refused() -> None:
    """An object's code with relocations in it is not a program yet, and the error says so."""
    obj = ElfObject.parse(fixture_path("xdp_count.clang-19.v3.el.g.o").read_bytes())
    with pytest.raises(OptionError, match="link"):
        kernel.load(obj.code)
    with pytest.raises(kernel.KernelError, match="needs map"):
        kernel.load(obj.link(obj.programs[0].name), btf=obj.btf and kernel.prepare_btf(obj))


def test_statistics_count_runs() -> None:
    """While statistics are on, runs are counted."""
    with kernel.load(asm.assemble("r0 = 0; exit")) as prog:
        prog.test_run(PACKET, repeat=10)
        assert prog.info().run_cnt == 0
        with kernel.stats():
            prog.test_run(PACKET, repeat=10)
        assert prog.info().run_cnt == 10


def test_the_kernel_tells_where_lines_went() -> None:
    """Line and function records come back with the slots of the xlated program."""
    with kernel.open_object(fixture_path("global_funcs.clang-19.v3.el.g.o")) as opened:
        prog = next(iter(opened.programs.values()))
        info = prog.info()
    assert len(info.func_info) == len(prog.program.subprogs)
    assert info.line_info["insn_off"][0] == 0
    assert (np.diff(info.line_info["insn_off"].astype(int)) > 0).all()
    assert len(info.jited_line_info) == len(info.line_info)


def test_a_program_is_found_by_its_number() -> None:
    """An id leads to the same program."""
    program = asm.assemble("r0 = 7; exit")
    with (
        kernel.load(program, name="seven") as prog,
        kernel.LoadedProgram.from_id(prog.info().id) as again,
    ):
        assert again.name == "seven"
        assert again.program.insns.tobytes() == program.insns.tobytes()
        assert again.test_run(PACKET).retval == 7
    with pytest.raises(kernel.KernelError, match="ENOENT"):
        kernel.LoadedProgram.from_id(0x7FFFFFFF)


def test_what_works_is_found() -> None:
    """The probes agree with what these tests do, and say which helpers a type has."""
    assert kernel.available() is None
    assert bpf_allowed()
    found = kernel.probe()
    assert {"btf", "func_info", "line_info", "test_run"} <= found.features
    assert {kernel.ProgType.XDP, kernel.ProgType.SOCKET_FILTER} <= found.prog_types
    assert {kernel.MapType.HASH, kernel.MapType.ARRAY_OF_MAPS} <= found.map_types
    assert kernel.has_helper("xdp", "xdp_adjust_head")
    assert not kernel.has_helper("xdp", "bpf_skb_load_bytes")
    assert not kernel.has_helper("xdp", 9999)


def test_a_refusal_keeps_no_room_of_its_log() -> None:
    """The room of a log is given back when a load is refused, not when objects are collected."""

    def n_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE

    def refuse() -> None:
        with pytest.raises(kernel.VerifierError):
            kernel.load(asm.assemble("r0 = r5; exit"), prog_type="socket_filter")

    refuse()
    before = n_bytes()
    gc.disable()
    try:
        for _ in range(8):
            refuse()
        assert n_bytes() - before < 32 << 20
    finally:
        gc.enable()
