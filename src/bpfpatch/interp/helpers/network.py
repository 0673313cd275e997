"""Helpers that ask the network: of a machine with one device, no routes, and no sockets.

Source: linux v6.18, net/core/filter.c: bpf_xdp_fib_lookup(), bpf_skb_fib_lookup(),
bpf_ipv4_fib_lookup(), bpf_xdp_check_mtu(), bpf_skb_check_mtu(), bpf_skb_set_tstamp(),
bpf_skb_under_cgroup(), bpf_sk_assign(); kernel/trace/bpf_trace.c,
bpf_current_task_under_cgroup().
"""

from __future__ import annotations

from errno import E2BIG, EAFNOSUPPORT, EAGAIN, EINVAL, ENODEV, EOPNOTSUPP
from typing import TYPE_CHECKING, Final

from ..contexts import ETH_HEADER, Xdp
from ..registry import helper
from .packets import packet_of, signed32, skb_of
from .room import IP, IPV6, protocol_of

if TYPE_CHECKING:
    from ..machine import Machine

_U32: Final = 0xFFFF_FFFF
LOOPBACK: Final = 1
"""The only device."""
_MTU: Final = 65536
_AF_INET, _AF_INET6 = 2, 10
_FIB_PARAMS: Final = 64
_FIB_FLAGS: Final = 0x3F
_FIB_IFINDEX: Final = 8
FWD_DISABLED: Final = 5
_FRAGMENTS_NEEDED: Final = 1
_CHECK_SEGMENTS: Final = 1


@helper("fib_lookup")
def fib_lookup(machine: Machine, context: int, params: int, size: int, flags: int) -> int:
    """Nothing is forwarded by the loopback device, and there is no other."""
    size = signed32(size)
    content = machine.memory.read(params, max(size, 0))
    if size < _FIB_PARAMS or flags & _U32 & ~_FIB_FLAGS:
        return -EINVAL
    if content[0] not in (_AF_INET, _AF_INET6):
        return -EAFNOSUPPORT
    ifindex = int.from_bytes(content[_FIB_IFINDEX : _FIB_IFINDEX + 4], machine.byteorder)
    return FWD_DISABLED if ifindex == LOOPBACK else -ENODEV


@helper("check_mtu")
def check_mtu(
    machine: Machine, context: int, ifindex: int, length: int, change: int, flags: int
) -> int:
    """Whether a packet fits the device, of which ``length`` is set to the most that it takes."""
    packet = packet_of(machine)
    given = machine.memory.read_int(length, 4)
    change = signed32(change)
    is_xdp = isinstance(machine.context, Xdp)
    if flags & ~(0 if is_xdp else _CHECK_SEGMENTS):
        return -EINVAL
    if flags and (change or given):
        return -EINVAL
    if ifindex & _U32 not in (0, LOOPBACK):
        return -ENODEV
    n_bytes = (given + ETH_HEADER if given else len(packet)) + change
    machine.memory.write_int(length, 4, _MTU)
    return _FRAGMENTS_NEEDED if n_bytes > _MTU + ETH_HEADER else 0


@helper("skb_set_tstamp")
def skb_set_tstamp(machine: Machine, context: int, time: int, kind: int) -> int:
    """Set the packet's time, and by which clock it is."""
    skb, kind = skb_of(machine), kind & _U32
    if protocol_of(machine, skb) not in (IP, IPV6):
        return -EOPNOTSUPP
    if kind > 2 or (kind and not time):
        return -EINVAL
    skb.write_field(machine, "tstamp", time)
    skb.write_field(machine, "tstamp_type", kind)
    return 0


@helper("current_task_under_cgroup")
def current_task_under_cgroup(machine: Machine, map_address: int, index: int) -> int:
    """No entry of an array of control groups is set."""
    found = machine.map_at(map_address)
    return -EAGAIN if index & _U32 < found.max_entries else -E2BIG


@helper("skb_under_cgroup")
def skb_under_cgroup(machine: Machine, context: int, map_address: int, index: int) -> int:
    """No entry of an array of control groups is set."""
    return current_task_under_cgroup(machine, map_address, index)


@helper("sk_lookup_tcp", "sk_lookup_udp", "skc_lookup_tcp")
def sk_lookup(
    machine: Machine, context: int, tuple_: int, size: int, netns: int, flags: int
) -> int:
    """There are no sockets."""
    machine.memory.read(tuple_, size & _U32)
    return 0


@helper("sk_fullsock", "tcp_sock", "get_listener_sock")
@helper("skc_to_tcp_sock", "skc_to_tcp6_sock", "skc_to_udp6_sock", "skc_to_unix_sock")
@helper("skc_to_tcp_timewait_sock", "skc_to_tcp_request_sock", "skc_to_mptcp_sock")
def no_socket(machine: Machine, socket: int) -> int:
    """There are no sockets of any kind."""
    return 0


@helper("sk_release")
def sk_release(machine: Machine, socket: int) -> int:
    """Give a socket back, of which there is none."""
    return -EINVAL


@helper("sk_assign")
def sk_assign(machine: Machine, context: int, socket: int, flags: int) -> int:
    """No socket can be had that a packet could be given to."""
    return -EINVAL
