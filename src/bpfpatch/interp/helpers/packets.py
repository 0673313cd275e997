"""Helpers of packets.

Source: linux v6.18, net/core/filter.c: bpf_skb_load_bytes(),
bpf_skb_store_bytes(), bpf_xdp_adjust_head(), bpf_xdp_adjust_tail(),
bpf_xdp_adjust_meta(), bpf_skb_change_head(), bpf_skb_change_tail(),
bpf_skb_vlan_push(), bpf_skb_vlan_pop().
"""

from __future__ import annotations

import zlib
from errno import EACCES, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING, Final

from ..contexts import ETH_HEADER, MAX_META, Skb
from ..errors import BadHelperUse
from ..packet import Packet
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

_U32: Final = 0xFFFF_FFFF
_XDP_FRAME: Final = 40
"""sizeof(struct xdp_frame), which the kernel keeps at the start of the headroom."""
_TC_ACT_REDIRECT: Final = 7
_XDP_REDIRECT: Final = 4
_MOST_SKB: Final = 0xFFFF


def packet_of(machine: Machine) -> Packet:
    """The machine's packet.

    Raises:
        BadHelperUse: there is none.
    """
    if machine.packet is None:
        raise BadHelperUse("there is no packet; run the program on an Skb or Xdp")
    return machine.packet


def skb_of(machine: Machine) -> Skb:
    """The machine's socket buffer.

    Raises:
        BadHelperUse: the program runs on something else.
    """
    if not isinstance(machine.context, Skb):
        raise BadHelperUse("this helper takes a socket buffer; run the program on an Skb")
    return machine.context


def signed32(value: int) -> int:
    """A register's low 32 bits as a signed number."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _move(machine: Machine, meta_at: int, data_at: int, end_at: int) -> None:
    packet_of(machine).move(meta_at, data_at, end_at)
    if machine.context is not None:
        machine.context.refresh(machine)


@helper("skb_load_bytes")
def skb_load_bytes(machine: Machine, context: int, byte_off: int, target: int, size: int) -> int:
    """Copy out of the packet; beyond it the target becomes zeros."""
    size &= _U32
    content = packet_of(machine).read(byte_off & _U32, size)
    if content is None or byte_off & _U32 > 0x7FFF_FFFF:
        machine.memory.read(target, size)
        machine.memory.write(target, bytes(size))
        return -EFAULT
    machine.memory.write(target, content)
    return 0


@helper("skb_load_bytes_relative")
def skb_load_bytes_relative(
    machine: Machine, context: int, byte_off: int, target: int, size: int, base: int
) -> int:
    """Copy out of the packet, from the Ethernet (0) or the network header (1) on."""
    if base > 1:
        return -EINVAL
    skb = skb_of(machine)
    network = ETH_HEADER if skb.is_l2 else 0
    if base == 0 and not skb.is_l2:
        network = -ETH_HEADER
    start = byte_off + (network if base == 1 or not skb.is_l2 else 0)
    return skb_load_bytes(machine, context, start & _U32, target, size)


@helper("skb_store_bytes")
def skb_store_bytes(
    machine: Machine, context: int, byte_off: int, source: int, size: int, flags: int
) -> int:
    """Copy into the packet."""
    if flags & ~3:
        return -EINVAL
    if byte_off & _U32 > 0x7FFF_FFFF:
        return -EFAULT
    content = machine.memory.read(source, size & _U32)
    return 0 if packet_of(machine).write(byte_off & _U32, content) else -EFAULT


@helper("xdp_load_bytes")
def xdp_load_bytes(machine: Machine, context: int, byte_off: int, target: int, size: int) -> int:
    """Copy out of the packet."""
    content = packet_of(machine).read(byte_off & _U32, size & _U32)
    if content is None:
        return -EINVAL
    machine.memory.write(target, content)
    return 0


@helper("xdp_store_bytes")
def xdp_store_bytes(machine: Machine, context: int, byte_off: int, source: int, size: int) -> int:
    """Copy into the packet."""
    content = machine.memory.read(source, size & _U32)
    return 0 if packet_of(machine).write(byte_off & _U32, content) else -EINVAL


@helper("xdp_get_buff_len")
def xdp_get_buff_len(machine: Machine, context: int) -> int:
    """The packet's length."""
    return len(packet_of(machine))


@helper("xdp_adjust_head")
def xdp_adjust_head(machine: Machine, context: int, delta: int) -> int:
    """Move the packet's start, and its metadata along."""
    packet = packet_of(machine)
    n_meta = packet.data_at - packet.meta_at
    data_at = packet.data_at + signed32(delta)
    if data_at < _XDP_FRAME + n_meta or data_at > packet.end_at - ETH_HEADER:
        return -EINVAL
    meta = bytes(packet.data_at - packet.meta_at)
    if n_meta:
        meta = machine.memory.read(packet.meta, n_meta)
    _move(machine, data_at - n_meta, data_at, packet.end_at)
    machine.memory.write(packet.meta, meta)
    return 0


@helper("xdp_adjust_tail")
def xdp_adjust_tail(machine: Machine, context: int, delta: int) -> int:
    """Move the packet's end; what it grows by is zeros."""
    packet = packet_of(machine)
    change = signed32(delta)
    end_at = packet.end_at + change
    # The kernel's frame ends with room that is reserved, which is not a part of our buffer.
    if end_at > packet.room or end_at < packet.data_at + ETH_HEADER:
        return -EINVAL
    old_end = packet.end_at
    _move(machine, packet.meta_at, packet.data_at, end_at)
    if change > 0:
        machine.memory.write(packet.data + old_end - packet.data_at, bytes(change))
    return 0


@helper("xdp_adjust_meta")
def xdp_adjust_meta(machine: Machine, context: int, delta: int) -> int:
    """Move the start of the metadata."""
    packet = packet_of(machine)
    meta_at = packet.meta_at + signed32(delta)
    n_meta = packet.data_at - meta_at
    if meta_at < _XDP_FRAME or n_meta < 0:
        return -EINVAL
    if n_meta % 4 or n_meta > MAX_META:
        return -EACCES
    _move(machine, meta_at, packet.data_at, packet.end_at)
    return 0


@helper("skb_pull_data")
def skb_pull_data(machine: Machine, context: int, size: int) -> int:
    """All of the packet is readable already; pointers to it become invalid."""
    packet = packet_of(machine)
    if size & _U32 > len(packet):
        return -ENOMEM
    _move(machine, packet.meta_at, packet.data_at, packet.end_at)
    return 0


@helper("skb_change_tail")
def skb_change_tail(machine: Machine, context: int, size: int, flags: int) -> int:
    """Cut the packet, or make it longer by zeros."""
    packet = packet_of(machine)
    size &= _U32
    if flags or size > _MOST_SKB or size < ETH_HEADER:
        return -EINVAL
    packet.replace(bytes(packet)[:size].ljust(size, b"\0"))
    skb_of(machine).refresh(machine)
    return 0


@helper("skb_change_head")
def skb_change_head(machine: Machine, context: int, size: int, flags: int) -> int:
    """Put zeros in front of the packet."""
    packet = packet_of(machine)
    size &= _U32
    if flags or len(packet) + size > _MOST_SKB:
        return -EINVAL
    packet.replace(bytes(size) + bytes(packet))
    skb_of(machine).refresh(machine)
    return 0


@helper("skb_vlan_push")
def skb_vlan_push(machine: Machine, context: int, protocol: int, tag: int) -> int:
    """Put a VLAN tag on; the first one goes into the context, a second into the packet."""
    skb, packet = skb_of(machine), packet_of(machine)
    protocol &= 0xFFFF
    protocol = int.from_bytes(protocol.to_bytes(2, machine.byteorder), "big")
    if protocol not in (0x8100, 0x88A8):
        protocol = 0x8100
    if skb.read_field(machine, "vlan_present"):
        content = bytes(packet)
        old = skb.read_field(machine, "vlan_tci").to_bytes(2, "big")
        old_protocol = skb.read_field(machine, "vlan_proto").to_bytes(4, machine.byteorder)
        kind = old_protocol[:2] if machine.byteorder == "little" else old_protocol[2:]
        packet.replace(content[:12] + kind + old + content[12:])
    wire = int.from_bytes(protocol.to_bytes(2, "big"), machine.byteorder)
    skb.write_field(machine, "vlan_present", 1)
    skb.write_field(machine, "vlan_tci", tag & 0xFFFF)
    skb.write_field(machine, "vlan_proto", wire)
    skb.refresh(machine)
    return 0


@helper("skb_vlan_pop")
def skb_vlan_pop(machine: Machine, context: int) -> int:
    """Take the VLAN tag off that is in the context, or else the packet's own."""
    skb, packet = skb_of(machine), packet_of(machine)
    if skb.read_field(machine, "vlan_present"):
        for name in ("vlan_present", "vlan_tci", "vlan_proto"):
            skb.write_field(machine, name, 0)
    content = bytes(packet)
    if content[12:14] in (b"\x81\x00", b"\x88\xa8") and len(content) >= 18:
        packet.replace(content[:12] + content[16:])
        wire = int.from_bytes(content[16:18], machine.byteorder)
        skb.write_field(machine, "protocol", wire)
    skb.refresh(machine)
    return 0


@helper("redirect")
def redirect(machine: Machine, ifindex: int, flags: int) -> int:
    """What a program returns to send its packet elsewhere."""
    if isinstance(machine.context, Skb):
        return 2 if flags & ~1 else _TC_ACT_REDIRECT
    return 0 if flags else _XDP_REDIRECT


@helper("redirect_peer")
def redirect_peer(machine: Machine, ifindex: int, flags: int) -> int:
    """The same, to the other end of a pair."""
    return 2 if flags else _TC_ACT_REDIRECT


@helper("redirect_neigh")
def redirect_neigh(machine: Machine, ifindex: int, parameters: int, size: int, flags: int) -> int:
    """The same, through the neighbour table."""
    return 2 if flags else _TC_ACT_REDIRECT


@helper("clone_redirect")
def clone_redirect(machine: Machine, context: int, ifindex: int, flags: int) -> int:
    """Send a copy, which is dropped; pointers to the packet become invalid."""
    packet = packet_of(machine)
    if flags & ~1:
        return -EINVAL
    _move(machine, packet.meta_at, packet.data_at, packet.end_at)
    return 0


@helper("get_hash_recalc")
def get_hash_recalc(machine: Machine, context: int) -> int:
    """The packet's hash; one that is not known yet is made of the packet, and never 0.

    The kernel's depends on a number that it draws when it starts.
    """
    skb = skb_of(machine)
    if not skb.read_field(machine, "hash"):
        skb.write_field(machine, "hash", zlib.crc32(bytes(packet_of(machine))) or 1)
    return skb.read_field(machine, "hash")


@helper("set_hash")
def set_hash(machine: Machine, context: int, value: int) -> int:
    """Set the packet's hash."""
    skb_of(machine).write_field(machine, "hash", value)
    return 0


@helper("set_hash_invalid")
def set_hash_invalid(machine: Machine, context: int) -> int:
    """Forget the packet's hash."""
    skb_of(machine).write_field(machine, "hash", 0)
    return 0


@helper("skb_change_type")
def skb_change_type(machine: Machine, context: int, kind: int) -> int:
    """Say for whom the packet is."""
    if kind & _U32 > 3:
        return -EINVAL
    skb_of(machine).write_field(machine, "pkt_type", kind)
    return 0


@helper("get_socket_uid")
def get_socket_uid(machine: Machine, context: int) -> int:
    """The packet has no owner: the overflow user."""
    return 65534
