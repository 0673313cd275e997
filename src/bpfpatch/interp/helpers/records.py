"""Helpers that send records to user space."""

from __future__ import annotations

from errno import EAGAIN, EFAULT, EINVAL
from typing import TYPE_CHECKING

from ..errors import BadHelperUse
from ..maps import RingMap
from ..registry import helper

if TYPE_CHECKING:
    from ..machine import Machine


def _ring(machine: Machine, map_address: int) -> RingMap:
    found = machine.map_at(map_address)
    if not isinstance(found, RingMap):
        raise BadHelperUse(f"{found!r} is no ring buffer or perf event array")
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
    raise BadHelperUse(f"{record:#x} is no record that was reserved")


@helper("ringbuf_output")
def ringbuf_output(machine: Machine, map_address: int, data: int, size: int, flags: int) -> int:
    """Send bytes as a record."""
    found = _ring(machine, map_address)
    if flags & ~3:
        return -EINVAL
    content = machine.memory.read(data, size)
    if size > found.max_entries - 8:
        return -EAGAIN
    found.send(content)
    return 0


@helper("ringbuf_query")
def ringbuf_query(machine: Machine, map_address: int, flags: int) -> int:
    """Nothing is ever waiting; the ring's size is known."""
    found = _ring(machine, map_address)
    return found.max_entries if flags == 1 else 0


@helper("perf_event_output", "skb_output", "xdp_output")
def perf_event_output(
    machine: Machine, context: int, map_address: int, flags: int, data: int, size: int
) -> int:
    """Send bytes, and the part of the packet that the flags ask for, to a perf event array."""
    found = _ring(machine, map_address)
    content = machine.memory.read(data, size)
    n_packet = flags >> 32 & 0xF_FFFF
    if n_packet:
        packet = None if machine.packet is None else machine.packet.read(0, n_packet)
        if packet is None:
            return -EFAULT
        content += packet
    found.send(content)
    return 0
