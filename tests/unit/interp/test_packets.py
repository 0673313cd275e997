"""Packets: contexts, legacy loads, and helpers that change a packet."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpfpatch.errors import OptionError
from bpfpatch.interp import Arguments, Machine, Skb, TrapError, Xdp

Make = Callable[..., Machine]
U64 = (1 << 64) - 1
PACKET = bytes.fromhex("ffffffffffff000000000001" + "0800") + bytes(range(50))


def test_xdp_packet_can_be_read_and_written(make: Make) -> None:
    """Data and data_end frame the packet; what is written comes back."""
    text = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = *(u16 *)(r2 + 12)
    *(u8 *)(r2 + 0) = 7
    r3 -= r2
    r0 = r3
    r0 <<= 16
    r0 |= r4
    exit
    """
    outcome = make(text).run(Xdp(PACKET))
    assert outcome.r0 == 64 << 16 | 0x0008
    assert outcome.packet == b"\7" + PACKET[1:]


@pytest.mark.parametrize("at", ["r3 + 0", "r2 - 1"])
def test_outside_of_the_packet(make: Make, at: str) -> None:
    """The bytes before and behind a packet cannot be used."""
    with pytest.raises(TrapError, match=r"near it is .* 64 bytes: packet|no memory is near"):
        make(f"r2 = *(u32 *)(r1 + 0); r3 = *(u32 *)(r1 + 4); r0 = *(u8 *)({at}); exit").run(
            Xdp(PACKET)
        )


def test_adjust_head_moves_the_packet(make: Make) -> None:
    """The packet loses bytes at its start; the old pointer is no good any more."""
    text = """
    r6 = r1
    r7 = *(u32 *)(r1 + 0)
    r2 = 14
    call bpf_xdp_adjust_head
    r2 = *(u32 *)(r6 + 0)
    r0 = *(u8 *)(r2 + 1)
    exit
    """
    outcome = make(text).run(Xdp(PACKET))
    assert (outcome.r0, outcome.packet) == (1, PACKET[14:])
    with pytest.raises(TrapError):
        make(text.replace("(r2 + 1)", "(r7 + 1)")).run(Xdp(PACKET))


@pytest.mark.parametrize(
    ("helper", "delta", "length"),
    [
        ("xdp_adjust_head", 51, None),
        ("xdp_adjust_head", 50, 14),
        ("xdp_adjust_head", -216, 280),
        ("xdp_adjust_head", -217, None),
        ("xdp_adjust_tail", -50, 14),
        ("xdp_adjust_tail", -51, None),
        ("xdp_adjust_tail", 8, 72),
        ("xdp_adjust_tail", 4096, None),
        ("xdp_adjust_meta", -8, 64),
        ("xdp_adjust_meta", -6, None),
        ("xdp_adjust_meta", 4, None),
    ],
)
def test_limits_of_adjusting(make: Make, helper: str, delta: int, length: int | None) -> None:
    """The packet keeps an Ethernet header, the headroom the kernel's own 40 bytes."""
    outcome = make(f"r2 = {delta}; call bpf_{helper}; exit").run(Xdp(PACKET))
    assert (outcome.r0 == 0) == (length is not None)
    assert outcome.packet is not None
    assert len(outcome.packet) == (64 if length is None else length)


@pytest.mark.parametrize(
    ("load", "wanted"),
    [
        ("*(u16 *)skb[12]", 0x0800),
        ("*(u8 *)skb[14]", 0),
        ("*(u32 *)skb[15]", 0x01020304),
        ("*(u32 *)skb[60]", 0x2E2F3031),
        ("*(u16 *)skb[r7 + 5]", 0x0102),
        ("*(u8 *)skb[-1048575]", 1),
        ("*(u16 *)skb[-2097140]", 0x0800),
    ],
)
def test_legacy_loads_are_big_endian(make: Make, load: str, wanted: int) -> None:
    """ld_abs and ld_ind read the packet in network order, also from its headers on."""
    assert make(f"r6 = r1; r7 = 10; r0 = {load}; exit").run(Skb(PACKET)).r0 == wanted


def test_legacy_load_beyond_the_packet_ends_the_program(make: Make) -> None:
    """Beyond the packet the program returns 0 at once."""
    assert make("r6 = r1; r0 = 5; r0 = *(u32 *)skb[61]; r0 = 9; exit").run(Skb(PACKET)).r0 == 0


def test_socket_filter_sees_what_follows_the_ethernet_header(make: Make) -> None:
    """Without layer 2 the packet starts at the network header; what was before it is zeros."""
    text = "r6 = r1; r0 = *(u8 *)skb[1]; r7 = *(u32 *)(r6 + 0); r7 <<= 8; r0 |= r7; exit"
    outcome = make(text).run(Skb(PACKET, is_l2=False))
    assert (outcome.r0, outcome.packet) == (50 << 8 | 1, bytes(14) + PACKET[14:])


def test_context_fields(make: Make) -> None:
    """Fields can be given and read, and what a program writes comes back."""
    text = "r0 = *(u32 *)(r1 + 8); *(u32 *)(r1 + 8) = 6; exit"
    outcome = make(text).run(Skb(PACKET, {"mark": 5}))
    assert outcome.r0 == 5
    assert outcome.ctx[8:12] == b"\6\0\0\0"
    with pytest.raises(OptionError, match="no context field 'colour'"):
        make(text).run(Skb(PACKET, {"colour": 5}))


def test_arguments(make: Make) -> None:
    """A raw tracepoint's arguments are 64-bit numbers in a row."""
    assert make("r0 = *(u64 *)(r1 + 8); exit").run(Arguments(1, -2)).r0 == U64 - 1


def test_load_and_store_bytes(make: Make) -> None:
    """Bytes are copied out of the packet and into it; beyond it that fails."""
    text = """
    r6 = r1
    r2 = 14
    r3 = r10
    r3 += -4
    r4 = 4
    call bpf_skb_load_bytes
    r1 = r6
    r2 = 0
    r3 = r10
    r3 += -4
    r4 = 4
    r5 = 0
    call bpf_skb_store_bytes
    r1 = r6
    r2 = 63
    r3 = r10
    r3 += -4
    r4 = 2
    call bpf_skb_load_bytes
    exit
    """
    outcome = make(text).run(Skb(PACKET))
    assert outcome.r0 == U64 + 1 - 14
    assert outcome.packet == b"\0\1\2\3" + PACKET[4:]


def test_checksum_of_a_changed_header(make: Make) -> None:
    """l3_csum_replace gives what RFC 1071's sum over the changed header gives."""
    header = bytearray.fromhex("450000540000400040010000c0a80001c0a80002")

    def checksum(data: bytes) -> int:
        total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        return ~total & 0xFFFF

    header[10:12] = checksum(header).to_bytes(2, "big")
    packet = PACKET[:14] + header
    changed = bytearray(header)
    changed[16:20] = bytes([10, 9, 8, 7])
    changed[10:12] = bytes(2)
    wanted = checksum(changed)
    old = int.from_bytes(header[16:20], "little")
    new = int.from_bytes(changed[16:20], "little")
    text = f"r2 = 24; r3 = {old:#x} ll; r4 = {new:#x} ll; r5 = 4; call bpf_l3_csum_replace; exit"
    outcome = make(text).run(Skb(packet))
    assert outcome.packet is not None
    assert outcome.packet[24:26] == wanted.to_bytes(2, "big")


def test_csum_diff_of_data(make: Make) -> None:
    """csum_diff from nothing to some bytes is their sum in 16 bits."""
    text = """
    *(u64 *)(r10 - 8) = 0x00020001
    r1 = 0
    r2 = 0
    r3 = r10
    r3 += -8
    r4 = 4
    r5 = 0
    call bpf_csum_diff
    exit
    """
    assert make(text).run().r0 == 3


def test_vlan_tag(make: Make) -> None:
    """A pushed tag is in the context, a popped one was the packet's own."""
    push = "r6 = r1; r2 = 0x81; r3 = 5; call bpf_skb_vlan_push; r0 = *(u32 *)(r6 + 24); exit"
    assert make(push).run(Skb(PACKET)).r0 == 5
    tagged = PACKET[:12] + bytes.fromhex("81000005") + PACKET[12:]
    assert make("call bpf_skb_vlan_pop; exit").run(Skb(tagged)).packet == PACKET
