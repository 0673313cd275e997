"""Contexts with a packet: an XDP input's metadata, and what of a socket buffer can be compared."""

from __future__ import annotations

from typing import Final

from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp.contexts import (
    ETH_HEADER,
    MAX_META,
    SKB_FIELDS,
    SKB_SIZE,
    XDP_FIELDS,
    XDP_SIZE,
)
from bpfpatch.isa import ByteOrder

META_UNIT: Final = 4


def n_meta(ctx: bytes | None, packet: bytes, byteorder: ByteOrder) -> int:
    """How many bytes of metadata come before the packet: what ``data`` of struct xdp_md says.

    Raises:
        OptionError: there cannot be so many.

    Source: linux v6.18, net/bpf/test_run.c, bpf_prog_test_run_xdp().
    """
    if ctx is None:
        return 0
    size = field(ctx, "data", byteorder)
    start = field(ctx, "data_meta", byteorder)
    if start or size % META_UNIT or size > MAX_META or size > len(packet) - ETH_HEADER:
        what = f"data_meta {start}" if start else f"data {size}"
        raise OptionError(
            f"the context's {what} cannot be: metadata starts at 0, data says where it ends, at "
            f"a multiple of {META_UNIT} up to {MAX_META}, and {ETH_HEADER} bytes of packet follow; "
            f"there are {len(packet)} in all"
        )
    return size


def field(ctx: bytes, name: str, byteorder: ByteOrder) -> int:
    """A field of struct xdp_md; 0 where the structure is cut off before it."""
    at, size = XDP_FIELDS[name]
    return int.from_bytes(ctx[at : at + size].ljust(size, b"\0"), byteorder)


def context(ctx: bytes | None, packet: bytes) -> bytes:
    """The structure for the kernel, with the addresses that fit the packet.

    The kernel gives it back with where the metadata ends, which tells it from the packet.
    """
    out = bytearray((ctx or b"").ljust(XDP_SIZE, b"\0"))
    for name, value in (
        ("data_meta", 0),
        ("data", n_meta(ctx, packet, "little")),
        ("data_end", len(packet)),
    ):
        at, size = XDP_FIELDS[name]
        out[at : at + size] = value.to_bytes(size, "little")
    return bytes(out)


# Socket buffers: which programs run on them, and what of their context can be compared.

SKB_TYPES: Final = frozenset(
    {
        ProgType.SOCKET_FILTER,
        ProgType.SCHED_CLS,
        ProgType.SCHED_ACT,
        ProgType.CGROUP_SKB,
        ProgType.LWT_IN,
        ProgType.LWT_OUT,
        ProgType.LWT_XMIT,
    }
)
"""Kinds that BPF_PROG_TEST_RUN gives a socket buffer.
Source: linux v6.18, net/bpf/test_run.c, bpf_prog_test_run_skb()."""

KEPT: Final = ("mark", "priority", "cb0", "cb1", "cb2", "cb3", "cb4", "tstamp")
"""Fields that a program can leave something in, and the kernel gives back.
Source: linux v6.18, net/bpf/test_run.c, convert_skb_to___skb()."""


def kept_fields(ctx: bytes) -> bytes:
    """A struct __sk_buff with zeros for all that says nothing of the program."""
    out = bytearray(SKB_SIZE)
    for name in KEPT:
        at, size = SKB_FIELDS[name]
        out[at : at + size] = ctx[at : at + size].ljust(size, b"\0")
    return bytes(out)


_HOST, _BROADCAST, _MULTICAST, _OTHERHOST = range(4)
_LEAST_ETHERTYPE: Final = 0x600
_RAW_IPX, _LLC = b"\0\1", b"\0\4"


def arrival(packet: bytes, byteorder: ByteOrder) -> dict[str, int]:
    """What the kernel notes of a packet when it arrives at the loopback device.

    The device's own address is zeros, so that most packets are for another host.

    Source: linux v6.18, net/ethernet/eth.c, eth_type_trans(); include/uapi/linux/if_packet.h
    (PACKET_*) and if_ether.h (ETH_P_802_3, ETH_P_802_2).
    """
    target, ethertype = packet[:6], packet[ETH_HEADER - 2 : ETH_HEADER]
    out: dict[str, int] = {}
    if target == b"\xff" * 6:
        out["pkt_type"] = _BROADCAST
    elif target and target[0] & 1:
        out["pkt_type"] = _MULTICAST
    elif any(target):
        out["pkt_type"] = _OTHERHOST
    if int.from_bytes(ethertype, "big") < _LEAST_ETHERTYPE:
        is_ipx = packet[ETH_HEADER : ETH_HEADER + 2] == b"\xff\xff"
        out["protocol"] = int.from_bytes(_RAW_IPX if is_ipx else _LLC, byteorder)
    return out
