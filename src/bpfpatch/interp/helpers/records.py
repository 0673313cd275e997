"""Helpers that send records to user space.

Source: linux v6.18, kernel/bpf/ringbuf.c; kernel/trace/bpf_trace.c, bpf_perf_event_output();
net/core/filter.c, bpf_skb_event_output() and bpf_xdp_event_output().
"""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL
from typing import TYPE_CHECKING, Final

from ..errors import BadHelperUse
from ..maps import CURRENT_CPU, PerfMap, RingMap
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine

_WAKEUPS: Final = 3
_PACKET_LENGTH: Final = 0xF_FFFF << 32


def _ring(machine: Machine, map_address: int) -> RingMap:
    found = machine.map_at(map_address)
    if not isinstance(found, RingMap):
        raise BadHelperUse(f"{found!r} is not a ring buffer")
    return found


@helper("ringbuf_reserve")
def ringbuf_reserve(machine: Machine, map_address: int, size: int, flags: int) -> int:
    """The address of a new record, or 0."""
    return 0 if flags else _ring(machine, map_address).reserve(size)


@helper("ringbuf_submit")
def ringbuf_submit(machine: Machine, record: int, flags: int) -> int:
    """Send a record."""
    return _finish(machine, record, submit=True)


@helper("ringbuf_discard")
def ringbuf_discard(machine: Machine, record: int, flags: int) -> int:
    """Drop a record."""
    return _finish(machine, record, submit=False)


def _finish(machine: Machine, record: int, *, submit: bool) -> int:
    for found in machine.maps.values():
        if isinstance(found, RingMap) and found.finish(record, submit=submit):
            return 0
    raise BadHelperUse(f"{record:#x} is not a record that was reserved")


@helper("ringbuf_output")
def ringbuf_output(machine: Machine, map_address: int, data: int, size: int, flags: int) -> int:
    """Send bytes as a record."""
    found = _ring(machine, map_address)
    if flags & ~_WAKEUPS:
        return -EINVAL
    return 0 if found.output(machine.memory.read(data, size)) else -EAGAIN


@helper("ringbuf_query")
def ringbuf_query(machine: Machine, map_address: int, flags: int) -> int:
    """Bytes that wait to be read, the ring's size, or how much was read or written at all."""
    found = _ring(machine, map_address)
    known = (found.produced - found.consumed, found.size, found.consumed, found.produced)
    return known[flags] if flags < len(known) else 0


@helper("perf_event_output", "skb_output", "xdp_output")
def perf_event_output(
    machine: Machine, context: int, map_address: int, flags: int, data: int, size: int
) -> int:
    """Send bytes, and the part of the packet that the flags ask for, to a perf event array."""
    found = machine.map_at(map_address)
    if not isinstance(found, PerfMap):
        raise BadHelperUse(f"{found!r} is not a perf event array")
    packet = machine.packet
    if flags & ~(CURRENT_CPU if packet is None else CURRENT_CPU | _PACKET_LENGTH):
        return -EINVAL
    content = machine.memory.read(data, size)
    if packet is not None:
        more = packet.read(0, (flags & _PACKET_LENGTH) >> 32)
        if more is None:
            return -EFAULT
        content += more
    return found.output(flags, content, machine.environment.cpu)
