"""The kernel as a runner: what it gives is what the interpreter gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bpfpatch import kernel, runs
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.kernel import KernelError, VerifierError
from bpfpatch.program import Program
from bpfpatch.runs import Input, open_runner
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path

pytestmark = pytest.mark.kernel
MODES = ("jit", "jit+harden")
PACKET = packets.SAMPLES["tcp_to_balancer"]


@pytest.fixture(autouse=True)
def _need_kernel() -> None:
    reason = runs.available("jit+harden")
    if reason is not None:
        pytest.skip(f"bpf(2) is not allowed here: {reason}")


def flat(text: str) -> Program:
    """A program from lines with ``;`` between them."""
    return assemble(text.replace(";", "\n"))


def fixture_object(name: str) -> ElfObject:
    """An object of the fixtures."""
    return ElfObject.read(str(fixture_path(name)))


@pytest.mark.parametrize("mode", MODES)
def test_all_64_bits_of_r0(mode: str) -> None:
    """A program on plain memory gives all of R0, and the memory that it changed."""
    code = flat("r0 = 0x1122334455667788 ll; *(u8 *)(r1 + 2) = 9; exit")
    with open_runner(code, mode) as runner:
        outcome = runner.run(Input(mem=bytes(3)))
    assert (outcome.r0, outcome.r0_bits, outcome.mem) == (0x1122334455667788, 64, b"\0\0\x09")


@pytest.mark.parametrize("size", [0, 1, 7, 64, 70_000])
def test_memory_of_any_size(size: int) -> None:
    """R2 is the length, and R1 is 0 where there is no memory."""
    with open_runner(flat("r0 = r2; if r1 != 0 goto l; r0 -= 1; l: exit"), "jit") as runner:
        outcome = runner.run(Input(mem=bytes(size)))
    assert outcome.r0 == (size or (1 << 64) - 1)
    assert outcome.mem == bytes(size)


def test_every_exit_of_the_main_function_counts() -> None:
    """R0 is stored at each exit of the main function, and at none of a callee's."""
    code = flat(
        "r6 = r1; call f; r6 = *(u8 *)(r6 + 0); if r6 == 0 goto l; r0 = 5; exit; l: r0 += 1; exit;"
        "f: r0 = 41; exit"
    )
    with open_runner(code, "jit") as runner:
        assert runner.run(Input(mem=b"\0")).r0 == 42
        assert runner.run(Input(mem=b"\1")).r0 == 5


def test_a_loop_to_the_first_instruction() -> None:
    """A jump back to the first instruction does not load the memory's address again."""
    code = flat("r2 += 0; if r2 == 9 goto l; r2 = 9; goto -4; l: r0 = r2; exit")
    with open_runner(code, "jit") as runner:
        assert runner.run(Input(mem=b"abc")).r0 == 9


def test_a_helper_of_another_kind_of_program() -> None:
    """Where the first kind of program may not call a helper, another one may."""
    code = flat("r2 = 0; r3 = r1; r1 = 0; r4 = 4; r5 = 0; call 28; exit")
    mem = bytes([1, 2, 3, 4])
    with open_runner(code, "jit") as runner:
        assert runner.run(Input(mem=mem)).r0 == open_runner(code).run(Input(mem=mem)).r0


def test_the_complaint_is_about_the_program_as_written() -> None:
    """The verifier's slot is that of the program, not of the one with a prologue."""
    with open_runner(flat("r0 = 1; r0 = *(u8 *)(r1 + 8); exit"), "jit") as runner:
        error = runner.run(Input(mem=b"abc")).error
    assert isinstance(error, VerifierError)
    assert error.slot == 1
    assert "r0 = *(u8 *)(r1 + 0x8)" in str(error)


def test_a_result_that_was_never_set() -> None:
    """A complaint about the store that was put in before an exit is about the exit."""
    with open_runner(flat("r2 = 1; exit"), "jit") as runner:
        error = runner.run(Input(mem=b"")).error
    assert isinstance(error, VerifierError)
    assert error.slot == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("xdp_balancer.clang-19.v3.el.g.o", "balancer"),
        ("tc_rewrite.clang-19.v3.el.g.o", "rewrite"),
        ("tail_calls.clang-19.v3.el.g.o", "entry"),
        ("globals.clang-19.v3.el.g.o", None),
        ("kconfig.clang-19.v3.el.g.o", None),
        ("map_in_map.clang-19.v3.el.g.o", None),
        ("cgroup.clang-19.v3.el.g.o", "ingress"),
        ("sock_filter.clang-19.v3.el.g.o", None),
    ],
)
def test_same_as_the_interpreter(name: str, program: str | None, mode: str) -> None:
    """R0, packet, context and maps are the interpreter's on all samples; and after a reset."""
    path = fixture_path(name)
    obj = ElfObject.read(str(path))
    linked = obj.link(program or obj.programs[0].name)
    ours = open_runner(linked, obj=obj)
    with open_runner(linked, mode, obj=obj) as theirs:
        before = theirs.maps()
        assert before == ours.maps()
        for _ in range(2):
            for sample, packet in packets.SKB_SAMPLES.items():
                a, b = ours.run(Input(packet=packet)), theirs.run(Input(packet=packet))
                assert b.error is None, sample
                assert a.r0_as(b.r0_bits) == b.r0, sample
                assert (a.packet, a.ctx, a.maps) == (b.packet, b.ctx, b.maps), sample
            ours.reset()
            theirs.reset()
            assert ours.maps() == theirs.maps() == before


def test_a_syscall_program() -> None:
    """A context that the program changes comes back."""
    code = flat("r2 = *(u64 *)(r1 + 0); r2 += 1; *(u64 *)(r1 + 8) = r2; r0 = 3; exit")
    one = Input(ctx=b"\x05" + bytes(15))
    with open_runner(code, "jit", prog_type="syscall") as runner:
        outcome = runner.run(one)
    assert (outcome.r0, outcome.ctx) == (3, open_runner(code, prog_type="syscall").run(one).ctx)


def test_a_context_beside_an_xdp_packet() -> None:
    """The receive queue's number is seen; the end of the packet follows from its length."""
    code = flat("r0 = *(u32 *)(r1 + 12); exit")
    one = Input(packet=PACKET, ctx=bytes(4) + b"\xee" * 4 + bytes(16))
    with open_runner(code, "jit", prog_type="xdp") as runner:
        theirs = runner.run(one)
    assert theirs.error is None
    assert theirs.r0 == open_runner(code, prog_type="xdp").run(one).r0


def test_put_and_reset() -> None:
    """An entry that is put is seen by the program, and gone after a reset."""
    obj = fixture_object("xdp_balancer.clang-19.v3.el.g.o")
    with open_runner(obj.link("balancer"), "jit", obj=obj) as runner:
        runner.put("verdicts", bytes(4), b"\1" * 16)
        assert runner.maps()["verdicts"] == {bytes(4): b"\1" * 16}
        runner.reset()
        assert runner.maps()["verdicts"] == {}
        with pytest.raises(OptionError, match="no map 'none'"):
            runner.put("none", b"", b"")


def test_a_reset_that_has_to_load_again() -> None:
    """Where a map cannot be emptied, such as a ring buffer, everything is made anew."""
    obj = fixture_object("ringbuf.clang-19.v3.el.g.o")
    name = next(
        info.name for info in obj.programs if kernel.section_kind(info.section).type is not None
    )
    with open_runner(obj.link(name), "jit", obj=obj) as runner:
        runner.reset()
        assert runner.maps() is not None


def test_a_large_array_is_read_at_once() -> None:
    """Of an array with more elements than one by one would do, those that are not zeros."""
    from bpfpatch.bpf.batch import read_array

    with kernel.Map.create("array", 4, 8, 100_000) as array:
        for index in (0, 77, 99_999):
            array.update(index.to_bytes(4, "little"), b"\1" * 8)
        found = read_array(array)
    assert found == {index.to_bytes(4, "little"): b"\1" * 8 for index in (0, 77, 99_999)}


def test_an_array_that_takes_several_calls() -> None:
    """Each goes on where the one before it stopped, up to the last element."""
    from bpfpatch.bpf.batch import read_array

    with kernel.Map.create("array", 4, 1 << 16, 150) as array:
        for index in (0, 63, 64, 149):
            array.update(index.to_bytes(4, "little"), b"\2" * (1 << 16))
        found = read_array(array)
    assert list(found) == [index.to_bytes(4, "little") for index in (0, 63, 64, 149)]
    assert set(found.values()) == {b"\2" * (1 << 16)}


def test_a_map_that_cannot_be_read_at_once() -> None:
    """Of an array of programs the kernel gives no elements together: its own error says so."""
    from bpfpatch.bpf.batch import read_array

    with (
        kernel.Map.create("prog_array", 4, 4, 8) as jumps,
        pytest.raises(OSError, match="524"),  # ENOTSUPP
    ):
        read_array(jumps)


def test_an_input_that_makes_no_sense() -> None:
    """A packet program without a packet, and a program on a context with one, are errors."""
    with (
        open_runner(flat("r0 = 2; exit"), "jit", prog_type="xdp") as xdp,
        pytest.raises(OptionError, match="runs on a packet"),
    ):
        xdp.run(Input())
    with (
        open_runner(flat("r0 = 2; exit"), "jit", prog_type="syscall") as syscall,
        pytest.raises(OptionError, match="takes no packet"),
    ):
        syscall.run(Input(packet=PACKET))


def test_a_packet_that_is_too_short() -> None:
    """What the kernel does not take for a packet is an error in the outcome."""
    with open_runner(flat("r0 = 2; exit"), "jit", prog_type="xdp") as runner:
        assert isinstance(runner.run(Input(packet=bytes(13))).error, KernelError)


def test_a_program_that_does_not_load() -> None:
    """Of a known kind it is refused when the runner is opened."""
    with pytest.raises(VerifierError):
        open_runner(flat("r0 = *(u8 *)(r1 + 1000); exit"), "jit", prog_type="xdp")


def test_what_was_taken_is_given_back() -> None:
    """A closed runner has no descriptors, and left this process on the processors it was on."""
    before = held()
    obj = fixture_object("xdp_balancer.clang-19.v3.el.g.o")
    for mode in MODES:
        with open_runner(obj.link("balancer"), mode, obj=obj) as runner:
            runner.run(Input(packet=PACKET))
            runner.run(Input(mem=PACKET))
    with pytest.raises(VerifierError):
        open_runner(flat("exit"), "jit+harden", prog_type="xdp")
    assert held() == before


def held() -> tuple[int, set[int]]:
    """How many descriptors are open, and which processors may be used."""
    return len(list(Path("/proc/self/fd").iterdir())), os.sched_getaffinity(0)
