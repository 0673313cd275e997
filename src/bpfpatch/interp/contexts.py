"""What a program is run on: plain memory, a packet, or raw arguments.

Head- and tailroom, and what a packet looks like to a program that is run by bpf(2): linux v6.18,
net/bpf/test_run.c. Layouts: `bpfpatch.facts.contexts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from bpfpatch.errors import OptionError
from bpfpatch.facts.contexts import CONTEXTS, SKB_AT, XDP_AT, Places
from bpfpatch.text import unknown

from .memory import Region
from .packet import Packet

if TYPE_CHECKING:
    from .machine import Machine

_CB_WORDS: Final = {
    f"cb{number}": (SKB_AT["cb"][0] + 4 * number, 4) for number in range(SKB_AT["cb"][1] // 4)
}
_IP6: Final = ("remote_ip6", "local_ip6")
SKB_FIELDS: Final[Places] = {
    **{name: place for name, place in SKB_AT.items() if name not in ("cb", *_IP6)},
    **_CB_WORDS,
}
"""Fields of struct __sk_buff that are numbers: byte offset and size; ``cb`` by its words."""
SKB_SIZE: Final = CONTEXTS["__sk_buff"][1]

XDP_FIELDS: Final = XDP_AT
"""Fields of struct xdp_md: byte offset and size."""
XDP_SIZE: Final = CONTEXTS["xdp_md"][1]

XDP_HEADROOM: Final = 256
MAX_META: Final = 252
"""Bytes of metadata that an XDP packet has at most."""
XDP_FRAME_SIZE: Final = 4096
# What the kernel keeps after an XDP packet for struct skb_shared_info.
XDP_TAIL_RESERVED: Final = 320
_SKB_ROOM: Final = 2048
ETH_HEADER: Final = 14
_ETHERTYPE_AT: Final = 12


class Context(Protocol):
    """What a program is run on."""

    def enter(self, machine: Machine) -> tuple[int, int]:
        """Put it into the machine's memory; what R1 and R2 hold."""

    def leave(self, machine: Machine) -> Left:
        """Take it out again."""


@dataclass(frozen=True, slots=True)
class Left:
    """What a run has left of its context.

    Attributes:
        mem: plain memory as it is now, or b"".
        packet: the packet as it is now, or None where there is none.
        ctx: the context structure as it is now, or b"".
        meta: the packet's metadata as it is now, or b"".
    """

    mem: bytes = b""
    packet: bytes | None = None
    ctx: bytes = b""
    meta: bytes = b""


class Plain:
    """Plain memory: R1 holds its address, R2 its length; both 0 where it is empty.

    Args:
        mem: its bytes.
    """

    def __init__(self, mem: bytes = b"") -> None:
        self._content = bytes(mem)
        self._region: Region | None = None

    def enter(self, machine: Machine) -> tuple[int, int]:
        """Put it into memory."""
        if not self._content:
            return 0, 0
        self._region = machine.memory.add("mem", self._content)
        return self._region.address, len(self._content)

    def leave(self, machine: Machine) -> Left:
        """Take it out again."""
        region, self._region = self._region, None
        if region is None:
            return Left()
        machine.memory.remove(region)
        return Left(mem=bytes(region.data))


class Arguments:
    """64-bit numbers, as a raw tracepoint gets; R1 holds their address.

    Args:
        arguments: the numbers.
    """

    def __init__(self, *arguments: int) -> None:
        self._arguments = arguments
        self._region: Region | None = None

    def enter(self, machine: Machine) -> tuple[int, int]:
        """Put them into memory."""
        order = machine.byteorder
        data = b"".join((one & (1 << 64) - 1).to_bytes(8, order) for one in self._arguments)
        self._region = machine.memory.add("ctx", data)
        return self._region.address, 0

    def leave(self, machine: Machine) -> Left:
        """Take them out again."""
        assert self._region is not None
        machine.memory.remove(self._region)
        return Left(ctx=bytes(self._region.data))


@dataclass(slots=True)
class _PacketContext:
    """A packet and the structure that describes it."""

    packet: bytes
    fields: Mapping[str, int] = field(default_factory=dict)
    _region: Region | None = None
    _packet: Packet | None = None

    def _check(self, known: Mapping[str, tuple[int, int]]) -> None:
        for name in self.fields:
            if name not in known:
                raise OptionError(unknown("context field", name, known))

    def _write(
        self, machine: Machine, known: Mapping[str, tuple[int, int]], values: Mapping[str, int]
    ) -> None:
        assert self._region is not None
        for name, value in values.items():
            at, size = known[name]
            low = value & ((1 << 8 * size) - 1)
            self._region.data[at : at + size] = low.to_bytes(size, machine.byteorder)

    def leave(self, machine: Machine) -> Left:
        """Take it out of memory again."""
        region, packet = self._region, self._packet
        self._region = self._packet = machine.packet = machine.context = None
        assert region is not None
        assert packet is not None
        packet.remove()
        machine.memory.remove(region)
        return Left(packet=bytes(packet), ctx=bytes(region.data), meta=packet.metadata)


@dataclass(slots=True)
class Xdp(_PacketContext):
    """An XDP program's packet.

    Args:
        packet: from the Ethernet header on.
        fields: of struct xdp_md, but for the addresses.
        meta: metadata, which lies before the packet.
    """

    meta: bytes = b""

    def enter(self, machine: Machine) -> tuple[int, int]:
        """Put it into memory."""
        self._check(XDP_FIELDS)
        tailroom = max(XDP_FRAME_SIZE - XDP_HEADROOM - len(self.packet) - XDP_TAIL_RESERVED, 0)
        self._region = machine.memory.add("ctx (struct xdp_md)", XDP_SIZE)
        content = self.meta + self.packet
        self._packet = Packet(
            machine.memory, content, XDP_HEADROOM - len(self.meta), tailroom, n_meta=len(self.meta)
        )
        self._write(machine, XDP_FIELDS, {"ingress_ifindex": 1, **self.fields})
        machine.packet, machine.context = self._packet, self
        self.refresh(machine)
        return self._region.address, 0

    def refresh(self, machine: Machine) -> None:
        """Write the packet's addresses into the structure again."""
        assert self._packet is not None
        packet = self._packet
        addresses = {"data": packet.data, "data_end": packet.data_end, "data_meta": packet.meta}
        self._write(machine, XDP_FIELDS, addresses)


@dataclass(slots=True)
class Skb(_PacketContext):
    """A packet as tc and socket filter programs see it.

    Args:
        packet: from the Ethernet header on.
        fields: of struct __sk_buff, but for the addresses and ``len``.
        is_l2: whether the program's packet starts with the Ethernet header, as for tc;
            a socket filter that is run by bpf(2) sees what follows it.

    Attributes:
        is_encapsulated: whether a program has put a header of another network on.
        tunnel_key: struct bpf_tunnel_key that a program has set, or None.
        tunnel_options: what a program has set, or None.
        is_tunnel_ipv6: whether the tunnel's addresses are of IPv6.
    """

    is_l2: bool = True
    is_encapsulated: bool = False
    tunnel_key: bytes | None = None
    tunnel_options: bytes | None = None
    is_tunnel_ipv6: bool = False

    def enter(self, machine: Machine) -> tuple[int, int]:
        """Put it into memory."""
        self._check(SKB_FIELDS)
        self.is_encapsulated = self.is_tunnel_ipv6 = False
        self.tunnel_key = self.tunnel_options = None
        self._region = machine.memory.add("ctx (struct __sk_buff)", SKB_SIZE)
        self._packet = Packet(machine.memory, self.packet, _SKB_ROOM, _SKB_ROOM)
        if not self.is_l2:
            start = self._packet.data_at + min(ETH_HEADER, len(self.packet))
            self._packet.move(start, start, self._packet.end_at)
        ethertype = self.packet[_ETHERTYPE_AT : _ETHERTYPE_AT + 2]
        given = {
            "protocol": int.from_bytes(ethertype, machine.byteorder),
            "ifindex": 1,
            "wire_len": len(self.packet),
            **self.fields,
        }
        self._write(machine, SKB_FIELDS, given)
        machine.packet, machine.context = self._packet, self
        self.refresh(machine)
        return self._region.address, 0

    def refresh(self, machine: Machine) -> None:
        """Write the packet's length and addresses into the structure again."""
        assert self._packet is not None
        packet = self._packet
        values = {
            "len": len(packet),
            "data": packet.data,
            "data_end": packet.data_end,
            "data_meta": packet.meta,
        }
        self._write(machine, SKB_FIELDS, values)

    def leave(self, machine: Machine) -> Left:
        """Take it out again; as in the kernel a socket filter's Ethernet header is zeros then."""
        if not self.is_l2 and self._packet is not None:
            n_header = min(ETH_HEADER, len(self.packet))
            start = self._packet.data_at - n_header
            self._packet.move(start, start, self._packet.end_at)
            self._packet.write(0, bytes(n_header))
        # slots=True makes a new class, which super() without arguments does not know.
        return _PacketContext.leave(self, machine)

    def read_field(self, machine: Machine, name: str) -> int:
        """A field's value at this moment."""
        assert self._region is not None
        at, size = SKB_FIELDS[name]
        return int.from_bytes(self._region.data[at : at + size], machine.byteorder)

    def write_field(self, machine: Machine, name: str, value: int) -> None:
        """Set a field."""
        self._write(machine, SKB_FIELDS, {name: value})
