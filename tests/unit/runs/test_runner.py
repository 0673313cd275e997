"""Runners, as far as the interpreter goes; tests/kernel has the same for the kernel."""

from __future__ import annotations

import pytest

from bpfpatch import runs
from bpfpatch.asm import assemble
from bpfpatch.btf import BtfBuilder
from bpfpatch.elf import ElfObject
from bpfpatch.errors import OptionError
from bpfpatch.interp import BudgetError, MachineOptions, TrapError
from bpfpatch.program import Program
from bpfpatch.runs import Input, open_runner
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path

PACKET = packets.SAMPLES["tcp_to_balancer"]
KEY = bytes(4)


def flat(text: str) -> Program:
    """A program from lines with ``;`` between them."""
    return assemble(text.replace(";", "\n"))


def fixture_object(name: str) -> ElfObject:
    """An object of the fixtures."""
    return ElfObject.read(str(fixture_path(name)))


def test_memory_goes_in_and_out() -> None:
    """R1 is the memory's address, R2 its length, and what the program wrote comes back."""
    code = flat("*(u8 *)(r1 + 1) = 7; r0 = r2; exit")
    outcome = open_runner(code).run(Input(mem=b"\0\0\0"))
    assert (outcome.r0, outcome.r0_bits, outcome.mem) == (3, 64, b"\0\7\0")
    assert outcome.packet is None
    assert outcome.ctx is None


def test_flat_code_runs_on_what_it_is_given() -> None:
    """Code of no kind takes a packet as a socket filter, which sees it from its third layer."""
    outcome = open_runner(flat("r0 = *(u32 *)(r1 + 0); exit")).run(Input(packet=PACKET))
    assert outcome.r0 == len(PACKET) - 14


def test_context_goes_in_and_out() -> None:
    """A syscall program's context is its memory."""
    code = flat("r2 = *(u64 *)(r1 + 0); r2 += 1; *(u64 *)(r1 + 8) = r2; r0 = 0; exit")
    runner = open_runner(code, prog_type="syscall")
    assert runner.run(Input(ctx=b"\x05" + bytes(15))).ctx == b"\x05" + bytes(7) + b"\x06" + bytes(7)


def test_an_error_is_in_the_outcome() -> None:
    """A trap and a spent budget are results, not exceptions."""
    stray = open_runner(flat("r0 = *(u8 *)(r1 + 9); exit")).run(Input(mem=b"abc"))
    assert isinstance(stray.error, TrapError)
    endless = open_runner(flat("l: goto l"), machine=MachineOptions(budget=100)).run(Input(mem=b""))
    assert isinstance(endless.error, BudgetError)


def test_input_is_one_thing() -> None:
    """Plain memory does not go beside a packet."""
    with pytest.raises(OptionError, match="give one"):
        Input(mem=b"", packet=b"")


def test_a_linked_program_wants_its_object() -> None:
    """Without the object there are no maps."""
    linked = fixture_object("xdp_count.clang-19.v3.el.g.o").link("count_proto")
    with pytest.raises(OptionError, match="obj="):
        open_runner(linked)


def test_unknown_mode() -> None:
    """A mode that does not exist is named beside those that do."""
    with pytest.raises(OptionError, match=r"jit\+harden"):
        open_runner(flat("exit"), "fast")
    with pytest.raises(OptionError, match="fast"):
        runs.available("fast")


def test_the_interpreter_is_always_there() -> None:
    """The interpreter needs nothing."""
    assert runs.available("interp") is None


def test_maps_are_read_and_put_back() -> None:
    """Contents come with the outcome, pile up, and are gone after a reset."""
    obj = fixture_object("xdp_balancer.clang-19.v3.el.g.o")
    with open_runner(obj.link("balancer"), obj=obj) as runner:
        before = runner.maps()
        first = runner.run(Input(packet=PACKET))
        second = runner.run(Input(packet=PACKET))
        assert first.maps["flows"]
        assert first.maps != second.maps != before
        runner.reset()
        assert runner.maps() == before
        assert runner.run(Input(packet=PACKET)) == first


def test_maps_can_be_left_out() -> None:
    """Who does not want the maps does not wait for them."""
    obj = fixture_object("xdp_balancer.clang-19.v3.el.g.o")
    runner = open_runner(obj.link("balancer"), obj=obj)
    assert runner.run(Input(packet=PACKET), with_maps=False).maps == {}


def test_data_sections_that_nobody_uses_are_there() -> None:
    """A rewritten program that lost its last use of a section has the same maps to compare."""
    obj = fixture_object("globals.clang-19.v3.el.g.o")
    linked = obj.link(obj.programs[0].name)
    bare = open_runner(Program(flat("r0 = 0; exit").insns))
    assert bare.maps() == {}
    names = set(open_runner(linked, obj=obj).maps())
    assert {".data", ".bss"} <= names
    assert not any(name.startswith(".rodata") for name in names)


def test_put_sets_an_entry() -> None:
    """An entry that is put is there for the program, until the reset."""
    obj = fixture_object("xdp_balancer.clang-19.v3.el.g.o")
    runner = open_runner(obj.link("balancer"), obj=obj)
    runner.put("verdicts", KEY, b"\1" * 16)
    assert runner.maps()["verdicts"] == {KEY: b"\1" * 16}
    runner.reset()
    assert runner.maps()["verdicts"] == {}


@pytest.mark.parametrize(
    ("name", "key", "what"), [("none", KEY, "no map 'none'"), ("verdicts", b"", "keys of 4")]
)
def test_put_checks_what_it_is_given(name: str, key: bytes, what: str) -> None:
    """A map that is not there, or a key of another size, is an error that says so."""
    obj = fixture_object("xdp_balancer.clang-19.v3.el.g.o")
    with pytest.raises(OptionError, match=what):
        open_runner(obj.link("balancer"), obj=obj).put(name, key, bytes(16))


def test_helpers_are_told() -> None:
    """The interpreter's outcome has each helper call."""
    outcome = open_runner(flat("call 8; exit")).run(Input(mem=b""))
    assert [call.name for call in outcome.helpers or ()] == ["get_smp_processor_id"]


def test_low_bits_of_r0() -> None:
    """R0 can be cut to what the other mode tells."""
    outcome = open_runner(flat("r0 = -1; exit")).run(Input(mem=b""))
    assert outcome.r0 == (1 << 64) - 1
    assert outcome.r0_as(32) == (1 << 32) - 1


@pytest.mark.parametrize(
    ("target", "kind"),
    [("ffffffffffff", 1), ("01005e000001", 2), ("000000000000", 0), ("020000000001", 3)],
)
def test_a_packet_is_for_somebody(target: str, kind: int) -> None:
    """pkt_type says whom a packet is for: broadcast, multicast, the loopback device, others."""
    code = flat("r0 = *(u32 *)(r1 + 4); exit")
    packet = bytes.fromhex(target) + PACKET[6:]
    assert open_runner(code, prog_type="sched_cls").run(Input(packet=packet)).r0 == kind


def test_a_length_is_no_ethertype() -> None:
    """A frame with a length for its type has protocol ETH_P_802_2 or ETH_P_802_3."""
    runner = open_runner(flat("r0 = *(u32 *)(r1 + 16); exit"), prog_type="sched_cls")
    head = PACKET[:12] + b"\0\x28"
    assert runner.run(Input(packet=head + b"\xaa" * 40)).r0 == 0x0400
    assert runner.run(Input(packet=head + b"\xff" * 40)).r0 == 0x0100


def test_context_beside_a_packet() -> None:
    """Fields of a given context are seen, and what the program leaves in it comes back."""
    code = flat("r2 = *(u32 *)(r1 + 8); r2 += 1; *(u32 *)(r1 + 8) = r2; r0 = r2; exit")
    ctx = bytes(8) + b"\x29" + bytes(183)
    outcome = open_runner(code, prog_type="sched_cls").run(Input(packet=PACKET, ctx=ctx))
    assert outcome.r0 == 42
    assert outcome.ctx == bytes(8) + b"\x2a" + bytes(183)


@pytest.mark.parametrize(
    ("kind", "r0", "name"),
    [
        ("xdp", 2, "XDP_PASS"),
        ("sched_cls", 0xFFFF_FFFF, "TC_ACT_UNSPEC"),
        ("sched_cls", 2, "TC_ACT_SHOT"),
        ("socket_filter", 2, ""),
        ("xdp", 99, ""),
    ],
)
def test_names_of_actions(kind: str, r0: int, name: str) -> None:
    """A result has the name that its kind of program gives it, or none."""
    from bpfpatch.facts import ProgType

    assert runs.action_name(ProgType.of(kind), r0) == name
    assert runs.action_name(None, r0) == ""


def test_core_records_are_applied_with_the_types_that_are_given() -> None:
    """With an object's own types every record holds what it was compiled with."""
    obj = fixture_object("core_relo.clang-19.v3.el.g.o")
    assert obj.btf is not None
    with open_runner(obj.link("relocated"), obj=obj, btf=obj.btf) as runner:
        (report,) = runner.run(Input(packet=bytes(64))).maps["reports"].values()
    sizes = [int.from_bytes(report[at : at + 4], "little") for at in range(16, 32, 4)]
    assert sizes[0] == 48  # struct task_struct as the source has it
    assert sizes[3] == 41  # __MAX_NR_ZONES as the source has it


@pytest.mark.kernel
def test_core_records_are_applied_with_the_kernels_types() -> None:
    """Without other types an object is adapted to the running kernel, as the kernel runs it."""
    if runs.available("jit") is not None:
        pytest.skip(f"bpf(2) is not allowed here: {runs.available('jit')}")
    obj = fixture_object("core_relo.clang-19.v3.el.g.o")
    found = []
    for mode in ("interp", "jit"):
        with open_runner(obj.link("relocated"), mode, obj=obj) as runner:
            (report,) = runner.run(Input(packet=bytes(64))).maps["reports"].values()
            found.append(report[16:32])  # sizes and numbers; the rest is of the task
    assert found[0] == found[1]
    assert found[0][:4] != (48).to_bytes(4, "little")


def test_what_the_types_lack_is_an_error_where_it_is_reached() -> None:
    """A record of a type that is not there becomes a call that fails, and says why."""
    obj = fixture_object("core_relo.clang-19.v3.el.g.o")
    nothing = BtfBuilder().build()
    with open_runner(obj.link("relocated"), obj=obj, btf=nothing) as runner:
        outcome = runner.run(Input(packet=bytes(64)))
    assert "CO-RE" in str(outcome.error)
