"""Helpers give the same in the interpreter as in BPF_PROG_TEST_RUN."""

from __future__ import annotations

import pytest

from bpfpatch import runs
from bpfpatch.asm import assemble
from bpfpatch.elf import ElfObject
from bpfpatch.runs import Input, Outcome
from support.inputs import packets
from support.inputs.bpfobjects import fixture_path
from support.machine import tools

pytestmark = pytest.mark.kernel

IP4 = packets.udp4("10.0.0.1", "10.0.0.2", 53)
IP6 = bytes(12) + b"\x86\xdd" + b"\x60\0\0\0\0\x18\x11\x40" + bytes(range(32)) + bytes(24)
OTHER = bytes(12) + b"\x08\x06" + bytes(range(46))
SHORT = IP4[:34]
PACKETS = {"IPv4": IP4, "IPv6": IP6, "ARP": OTHER, "short": SHORT}


@pytest.fixture(autouse=True)
def _kernel() -> None:
    tools.need_bpf()


def call(name: str, *args: int | str, then: str = "") -> str:
    """A call with numbers, or registers, for its arguments after the context."""
    sets = "".join(f"r{at} = {arg}\n" for at, arg in enumerate(args, 2))
    return f"r1 = r6\n{sets}call bpf_{name}\n{then}"


def outcomes(text: str, packet: bytes, prog_type: str = "sched_cls") -> tuple[Outcome, Outcome]:
    """What a program gives in the interpreter and in the kernel."""
    program = assemble(f"r6 = r1\n{text}\nexit")
    found = []
    for mode in ("interp", "jit"):
        with runs.open_runner(program, mode, prog_type=prog_type, whole_r0=True) as runner:
            found.append(runner.run(Input(packet=packet)))
    return found[0], found[1]


def check(text: str, packet: bytes, prog_type: str = "sched_cls") -> None:
    """Result, packet and context are the same."""
    ours, theirs = outcomes(text, packet, prog_type)
    assert ours.error is None, ours.error
    assert theirs.error is None, theirs.error
    assert hex(ours.r0) == hex(theirs.r0)
    assert ours.packet == theirs.packet
    assert ours.ctx == theirs.ctx


ROOM = [
    (20, 1, 0),
    (20, 0, 0),
    (-8, 0, 0),
    (-8, 1, 0),
    (8, 2, 0),
    (4096, 1, 0),
    (-4096, 1, 0),
    (4095, 1, 0),
    (0, 1, 0),
    (20, 1, 1 << 9),
    (20, 1, 1 << 1),
    (40, 1, 1 << 2),
    (20, 1, 3 << 1),
    (28, 1, 1 << 1 | 1 << 4),
    (28, 1, 1 << 1 | 3 << 3),
    (36, 1, 1 << 1 | 1 << 6 | 14 << 56),
    (36, 1, 1 << 1 | 1 << 6 | 13 << 56),
    (36, 1, 1 << 1 | 40 << 56),
    (-20, 1, 1 << 7),
    (-20, 1, 1 << 8),
    (-20, 1, 3 << 7),
    (-20, 1, 1 << 1),
    (20, 1, 1 << 7),
    (-8, 1, 1 << 5),
    (8, 1, 1 << 5 | 1),
]


@pytest.mark.parametrize("name", PACKETS)
def test_adjust_room(name: str) -> None:
    """Room is made and taken, or refused, at the same place and with the same error."""
    for step, mode, flags in ROOM:
        text = call("skb_adjust_room", step, mode, f"{flags:#x} ll")
        then = "r7 = r0\nr0 = *(u32 *)(r6 + 16)\nr0 <<= 32\nr7 <<= 32\nr7 >>= 32\nr0 |= r7\n"
        check(text + then, PACKETS[name])


def test_encapsulate_twice() -> None:
    """A second header of another network is refused."""
    text = call("skb_adjust_room", 20, 1, 2)
    check(text + text, IP4)


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("protocol", [0x0008, 0xDD86, 0x0608])
@pytest.mark.parametrize("flags", [0, 1])
def test_change_proto(name: str, protocol: int, flags: int) -> None:
    """An IPv4 header becomes as long as an IPv6 one, and the other way round."""
    then = "r7 = r0\nr0 = *(u32 *)(r6 + 16)\nr0 <<= 32\nr7 <<= 32\nr7 >>= 32\nr0 |= r7\n"
    check(call("skb_change_proto", protocol, flags) + then, PACKETS[name])


KEY = "".join(
    f"*(u32 *)(r10 - {44 - 4 * at}) = {0x01020304 * (at + 1) & 0x7FFFFFFF}\n" for at in range(11)
)


def spread(n_bytes: int) -> str:
    """R0 as it was, folded with what the first bytes of the stack's last 48 hold."""
    words = range(0, n_bytes - n_bytes % 4, 4)
    return "".join(f"r7 = *(u32 *)(r10 - {44 - at})\nr0 *= 31\nr0 += r7\n" for at in words)


@pytest.mark.parametrize("flags", [0, 1, 2, 0x10, 0x20, 0x40])
@pytest.mark.parametrize("size", [44, 28, 24, 22, 20, 8])
@pytest.mark.parametrize("clear", [(), (24,), (20,), (20, 24)])
def test_tunnel_key(flags: int, size: int, clear: tuple[int, ...]) -> None:
    """A key that was set can be read again, with its ends exchanged; what is odd is refused."""
    cleared = "".join(f"*(u32 *)(r10 - {44 - at}) = 0\n" for at in clear)
    put = "r2 = r10\nr2 += -44\n"
    text = KEY + cleared
    text += f"r1 = r6\n{put}r3 = {size}\nr4 = {flags}\ncall bpf_skb_set_tunnel_key\nr8 = r0\n"
    text += f"r1 = r6\n{put}r3 = 44\nr4 = {flags & 1}\ncall bpf_skb_get_tunnel_key\n"
    check(text + "r0 *= 31\nr0 += r8\n" + spread(44), IP4)


@pytest.mark.parametrize("size", [44, 28, 24, 22, 8, 20])
@pytest.mark.parametrize("flags", [0, 1, 2])
@pytest.mark.parametrize("is_set", [False, True])
def test_read_a_tunnel_key(size: int, flags: int, is_set: bool) -> None:
    """A packet that came through no tunnel has no key; one that was set has older forms, too."""
    put = "r2 = r10\nr2 += -44\n"
    text = KEY + "*(u32 *)(r10 - 24) = 0\n*(u32 *)(r10 - 20) = 0\n"
    if is_set:
        text += f"r1 = r6\n{put}r3 = 44\nr4 = 0\ncall bpf_skb_set_tunnel_key\n" + KEY
    text += f"r1 = r6\n{put}r3 = {size}\nr4 = {flags}\ncall bpf_skb_get_tunnel_key\n"
    check(text + spread(44), IP4)


@pytest.mark.parametrize("is_set", [False, True])
@pytest.mark.parametrize("size", [8, 4, 6, 12])
def test_tunnel_options(is_set: bool, size: int) -> None:
    """Options belong to a key; they come back with zeros after them, or do not fit."""
    text = KEY + "*(u32 *)(r10 - 24) = 0\n*(u32 *)(r10 - 20) = 0\n"
    if is_set:
        text += "r1 = r6\nr2 = r10\nr2 += -44\nr3 = 44\nr4 = 0\ncall bpf_skb_set_tunnel_key\n"
    text += (
        f"r1 = r6\nr2 = r10\nr2 += -44\nr3 = {size}\ncall bpf_skb_set_tunnel_opt\nr8 = r0\n" + KEY
    )
    text += "r1 = r6\nr2 = r10\nr2 += -44\nr3 = 8\ncall bpf_skb_get_tunnel_opt\n"
    check(text + "r0 *= 31\nr0 += r8\n" + spread(44), IP4)


@pytest.mark.parametrize("prog_type", ["xdp", "sched_cls"])
@pytest.mark.parametrize(
    ("family", "ifindex", "size", "flags"),
    [(2, 1, 64, 0), (2, 9999, 64, 0), (7, 1, 64, 0), (2, 1, 63, 0), (2, 1, 64, 64), (2, 1, 64, 1)],
)
def test_fib_lookup(prog_type: str, family: int, ifindex: int, size: int, flags: int) -> None:
    """The loopback device forwards nothing; what is odd has its error."""
    text = "".join(f"*(u64 *)(r10 - {8 * at}) = 0\n" for at in range(1, 9))
    text += f"*(u8 *)(r10 - 64) = {family}\n*(u32 *)(r10 - 56) = {ifindex}\n"
    text += f"r1 = r6\nr2 = r10\nr2 += -64\nr3 = {size}\nr4 = {flags}\ncall bpf_fib_lookup\n"
    check(text, IP4, prog_type)


@pytest.mark.parametrize("prog_type", ["xdp", "sched_cls"])
@pytest.mark.parametrize(
    ("ifindex", "given", "change", "flags"),
    [(0, 0, 0, 0), (1, 0, 0, 0), (9999, 0, 0, 0), (0, 65536, 0, 0), (0, 65537, 0, 0),
     (0, 0, 65600, 0), (0, 65537, -1, 0), (0, 0, 0, 1), (0, 5, 0, 1), (0, 0, 0, 2)],
)  # fmt: skip
def test_check_mtu(prog_type: str, ifindex: int, given: int, change: int, flags: int) -> None:
    """What fits the device, and how much that is."""
    text = f"*(u32 *)(r10 - 4) = {given}\nr1 = r6\nr2 = {ifindex}\nr3 = r10\nr3 += -4\n"
    text += f"r4 = {change}\nr5 = {flags}\ncall bpf_check_mtu\n"
    check(text + "r7 = *(u32 *)(r10 - 4)\nr0 <<= 20\nr0 += r7\n", IP4, prog_type)


@pytest.mark.parametrize("name", ["IPv4", "ARP"])
@pytest.mark.parametrize(("time", "kind"), [(5, 0), (0, 0), (5, 1), (0, 1), (5, 2), (5, 3)])
def test_set_tstamp(name: str, time: int, kind: int) -> None:
    """A packet's time, and its clock."""
    check(call("skb_set_tstamp", time, kind), PACKETS[name])


@pytest.mark.parametrize("helper", ["sk_lookup_tcp", "sk_lookup_udp", "skc_lookup_tcp"])
def test_no_sockets(helper: str) -> None:
    """Nothing listens to a port of the loopback's where nothing was set up."""
    text = "*(u64 *)(r10 - 16) = 0\n*(u64 *)(r10 - 8) = 0\nr1 = r6\nr2 = r10\nr2 += -16\n"
    text += f"r3 = 12\nr4 = -1\nr5 = 0\ncall bpf_{helper}\nr1 = r0\nr0 = 7\n"
    text += "if r1 == 0 goto out\ncall bpf_sk_release\nr0 = 8\nout:\n"
    check(text, IP4)


def test_buffers_fill_up() -> None:
    """Ring buffers, queues and tables take as much as in the kernel; events need a reader."""
    obj = ElfObject.read(fixture_path("full_buffers.clang-19.v3.el.g.o"))
    found = []
    for mode in ("interp", "jit"):
        with runs.open_runner(obj.link("fill"), mode, obj=obj) as runner:
            rows = [runner.run(Input(packet=IP4)) for _ in range(2)]
            found.append([(one.r0_as(32), one.maps["results"], one.maps["table"]) for one in rows])
    assert found[0] == found[1]


def test_a_hash_is_never_zero() -> None:
    """A packet without a hash gets one, which the context shows then."""
    text = "r1 = r6\ncall bpf_get_hash_recalc\nr7 = *(u32 *)(r6 + 68)\nr1 = r0\nr0 = 0\n"
    check(text + "if r1 == 0 goto out\nr0 = 1\nif r1 == r7 goto out\nr0 = 2\nout:\n", IP4)
