"""Helpers that make room in a socket buffer, take some away, or translate its protocol.

Source: linux v6.18, net/core/filter.c: bpf_skb_adjust_room(), bpf_skb_net_grow(),
bpf_skb_net_shrink(), bpf_skb_change_proto(), bpf_skb_proto_xlat(), bpf_skb_generic_push() and
bpf_skb_generic_pop().
"""

from __future__ import annotations

from errno import EALREADY, EFAULT, EINVAL, ENOMEM
from typing import TYPE_CHECKING, Final

from ..contexts import ETH_HEADER, Skb
from ..registry import helper
from .packets import packet_of, signed32, skb_of

if TYPE_CHECKING:
    from ..machine import Machine

ENOTSUPP: Final = 524
"""The kernel's own; errno has none of this number."""
_U32: Final = 0xFFFF_FFFF

IP, IPV6 = 0x0800, 0x86DD
_HEADER: Final = {IP: 20, IPV6: 40}
"""Bytes of the least network header, by EtherType."""

_MODE_NET, _MODE_MAC = 0, 1
_FIXED_GSO, _NO_CSUM_RESET = 1, 1 << 5
_ENCAP: Final = {IP: 1 << 1, IPV6: 1 << 2}
_GRE, _UDP, _L2_ETH = 1 << 3, 1 << 4, 1 << 6
_DECAP: Final = {IP: 1 << 7, IPV6: 1 << 8}
_INNER_MAC: Final = 56
_KNOWN: Final = 0x1FF | 0xFF << _INNER_MAC
_OF_SHRINKING: Final = _FIXED_GSO | _NO_CSUM_RESET | _DECAP[IP] | _DECAP[IPV6]
_MOST_STEP: Final = 0xFFF
_MOST_BYTES: Final = 16384 - 320
"""SKB_MAX_ALLOC with pages of 4 KiB: four of them, less what the kernel keeps of each."""


def protocol_of(machine: Machine, skb: Skb) -> int:
    """The EtherType that the context has."""
    value = skb.read_field(machine, "protocol") & 0xFFFF
    return int.from_bytes(value.to_bytes(2, machine.byteorder), "big")


def set_protocol(machine: Machine, skb: Skb, protocol: int) -> None:
    """Set the EtherType in the context; the packet's own is the program's business."""
    skb.write_field(
        machine, "protocol", int.from_bytes(protocol.to_bytes(2, "big"), machine.byteorder)
    )


@helper("skb_adjust_room")
def skb_adjust_room(machine: Machine, context: int, change: int, mode: int, flags: int) -> int:
    """Make room after the link layer's header or the network's, or take some away there."""
    skb, step = skb_of(machine), signed32(change)
    error = _refusal(machine, step, mode & _U32, flags)
    if error:
        return error
    protocol = protocol_of(machine, skb)
    at = ETH_HEADER + (_HEADER[protocol] if mode & _U32 == _MODE_NET else 0)
    goals = [other for other, bit in (_DECAP if step < 0 else _ENCAP).items() if flags & bit]
    if step < 0:
        error = -EINVAL if flags & ~_OF_SHRINKING else _pop(machine, at, -step)
    else:
        error = _check_encap(skb, step, flags, goals) or _push(machine, at, step)
        skb.is_encapsulated |= bool(goals) and not error
    if goals and not error:
        set_protocol(machine, skb, goals[0])
    skb.refresh(machine)
    return error


def _refusal(machine: Machine, step: int, mode: int, flags: int) -> int:
    """0, or why room cannot be made or taken at all."""
    protocol, n_bytes = protocol_of(machine, skb_of(machine)), len(packet_of(machine))
    if flags & ~_KNOWN:
        return -EINVAL
    if abs(step) > _MOST_STEP:
        return -EFAULT
    if protocol not in _HEADER or mode not in (_MODE_NET, _MODE_MAC):
        return -ENOTSUPP
    decap = [other for other, bit in _DECAP.items() if flags & bit]
    if decap and (step >= 0 or len(decap) > 1):
        return -EINVAL
    if step >= 0:
        return -ENOTSUPP if n_bytes + step > _MOST_BYTES else 0
    n_left = n_bytes - ETH_HEADER + step
    return -ENOTSUPP if n_left <= 0 or n_left < _HEADER[decap[0] if decap else protocol] else 0


def _check_encap(skb: Skb, step: int, flags: int, goals: list[int]) -> int:
    """0, or why a header of another network cannot be put on."""
    if not goals:
        return 0
    n_inner = flags >> _INNER_MAC & 0xFF
    is_odd = len(goals) > 1 or (flags & _GRE and flags & _UDP)
    if is_odd or (flags & _L2_ETH and n_inner < ETH_HEADER):
        return -EINVAL
    if skb.is_encapsulated:
        return -EALREADY
    return -EINVAL if n_inner > step else 0


@helper("skb_change_proto")
def skb_change_proto(machine: Machine, context: int, protocol: int, flags: int) -> int:
    """Make room for an IPv6 header in place of an IPv4 one, or the other way round."""
    if flags:
        return -EINVAL
    skb, step = skb_of(machine), _HEADER[IPV6] - _HEADER[IP]
    wanted = int.from_bytes((protocol & 0xFFFF).to_bytes(2, machine.byteorder), "big")
    if {protocol_of(machine, skb), wanted} != {IP, IPV6}:
        return -ENOTSUPP
    change = _push if wanted == IPV6 else _pop
    error = change(machine, ETH_HEADER, step)
    if not error:
        set_protocol(machine, skb, wanted)
        skb.write_field(machine, "hash", 0)
    skb.refresh(machine)
    return error


def _push(machine: Machine, at: int, step: int) -> int:
    packet = packet_of(machine)
    content = bytes(packet)
    # What is not there is not moved either: the kernel goes on in the buffer's tail.
    packet.replace(content[:at].ljust(at, b"\0") + bytes(step) + content[at:])
    return 0


def _pop(machine: Machine, at: int, step: int) -> int:
    packet = packet_of(machine)
    content = bytes(packet)
    if at + step > len(content):
        return -ENOMEM
    packet.replace(content[:at] + content[at + step :])
    return 0
