"""A handful of packets for the demo, built field by field."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_IPV4, _IPV6, _VLAN, _ARP = 0x0800, 0x86DD, 0x8100, 0x0806
_TCP, _UDP = 6, 17
_MACS: Final = bytes.fromhex("020000000001020000000002")
_CLIENT: Final = "192.0.2.7"


def packets() -> dict[str, bytes]:
    """What to run the demo on, by description; the balancer's address is 10.0.0.1 port 80."""
    balancer, other = "10.0.0.1", "10.0.0.9"
    return {
        "TCP to the balancer": _frame(_IPV4, _ip4(_TCP, balancer, 80)),
        "UDP to the balancer": _frame(_IPV4, _ip4(_UDP, balancer, 80, 33)),
        "TCP to the balancer, in a VLAN": _frame(_IPV4, _ip4(_TCP, balancer, 80, 9), vlan=5),
        "TCP to a closed port": _frame(_IPV4, _ip4(_TCP, balancer, 23)),
        "UDP to someone else": _frame(_IPV4, _ip4(_UDP, other, 53, 100)),
        "IPv6 TCP": _frame(_IPV6, _ip6(_TCP)),
        "IPv4 that is cut off": _frame(_IPV4, b"\x45" + bytes(9)),
        "ARP": _frame(_ARP, bytes(28)),
    }


def _frame(kind: int, payload: bytes, vlan: int | None = None) -> bytes:
    tag = b"" if vlan is None else struct.pack(">HH", _VLAN, vlan)
    return _MACS + tag + struct.pack(">H", kind) + payload


def _ip4(proto: int, to: str, port: int, n_data: int = 0) -> bytes:
    addresses = IPv4Address(_CLIENT).packed + IPv4Address(to).packed
    segment = _segment(proto, port, bytes(range(n_data)), addresses)
    start = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(segment), 1, 0, 64, proto)
    checksum = _checksum(start + b"\0\0" + addresses)
    return start + struct.pack(">H", checksum) + addresses + segment


def _ip6(proto: int) -> bytes:
    addresses = IPv6Address("2001:db8::7").packed + IPv6Address("2001:db8::9").packed
    segment = _segment(proto, 80, b"", addresses)
    return struct.pack(">IHBB", 6 << 28, len(segment), proto, 64) + addresses + segment


def _segment(proto: int, port: int, data: bytes, addresses: bytes) -> bytes:
    """A TCP SYN or a UDP datagram with its checksum over the pseudo-header."""

    def build(checksum: int) -> bytes:
        if proto == _UDP:
            return struct.pack(">HHHH", 40000, port, 8 + len(data), checksum) + data
        return struct.pack(">HHIIHHHH", 40000, port, 1, 0, 0x5002, 8192, checksum, 0) + data

    pseudo = addresses + struct.pack(">HH", proto, len(build(0)))
    return build(_checksum(pseudo + build(0)) or 0xFFFF)


def _checksum(data: bytes) -> int:
    """The internet checksum. Source: RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f">{len(padded) // 2}H", padded)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
