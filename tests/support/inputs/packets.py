"""Small packets to run programs on, built field by field."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ETH_IP = 0x0800
ETH_IP6 = 0x86DD
ETH_VLAN = 0x8100
ETH_ARP = 0x0806
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
SYN = 0x02
MACS = bytes.fromhex("020000000001020000000002")


def csum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def eth(proto: int, payload: bytes, vlans: tuple[int, ...] = ()) -> bytes:
    """An Ethernet frame, with a tag for each of ``vlans``."""
    tags = b"".join(struct.pack(">HH", ETH_VLAN, vlan) for vlan in vlans)
    return MACS + tags + struct.pack(">H", proto) + payload


def ipv4(proto: int, src: str, dst: str, payload: bytes, *, ttl: int = 64, tos: int = 0) -> bytes:
    """An IPv4 packet without options, its header checksum right."""
    addrs = IPv4Address(src).packed + IPv4Address(dst).packed
    head = struct.pack(">BBHHHBB", 0x45, tos, 20 + len(payload), 1, 0, ttl, proto)
    return head + struct.pack(">H", csum(head + b"\0\0" + addrs)) + addrs + payload


def ipv6(proto: int, src: str, dst: str, payload: bytes) -> bytes:
    """An IPv6 packet."""
    head = struct.pack(">IHBB", 6 << 28, len(payload), proto, 64)
    return head + IPv6Address(src).packed + IPv6Address(dst).packed + payload


def tcp(
    sport: int, dport: int, src: str, dst: str, payload: bytes = b"", *, flags: int = SYN
) -> bytes:
    """A TCP segment over IPv4, its checksum right."""

    def segment(check: int) -> bytes:
        head = struct.pack(">HHIIHHHH", sport, dport, 1, 0, 0x5000 | flags, 8192, check, 0)
        return head + payload

    return segment(csum(_pseudo(TCP, src, dst, 20 + len(payload)) + segment(0)))


def udp(sport: int, dport: int, src: str, dst: str, payload: bytes = b"") -> bytes:
    """A UDP datagram over IPv4, its checksum right."""
    size = 8 + len(payload)

    def datagram(check: int) -> bytes:
        return struct.pack(">HHHH", sport, dport, size, check) + payload

    return datagram(csum(_pseudo(UDP, src, dst, size) + datagram(0)) or 0xFFFF)


def _pseudo(proto: int, src: str, dst: str, size: int) -> bytes:
    addrs = IPv4Address(src).packed + IPv4Address(dst).packed
    return addrs + struct.pack(">HH", proto, size)


def tcp4(src: str, dst: str, dport: int, size: int = 0, vlans: tuple[int, ...] = ()) -> bytes:
    """A whole frame with a TCP segment in it."""
    segment = tcp(40000, dport, src, dst, bytes(range(size % 256)))
    return eth(ETH_IP, ipv4(TCP, src, dst, segment), vlans)


def udp4(src: str, dst: str, dport: int, size: int = 0, vlans: tuple[int, ...] = ()) -> bytes:
    """A whole frame with a UDP datagram in it."""
    datagram = udp(40000, dport, src, dst, bytes(range(size % 256)))
    return eth(ETH_IP, ipv4(UDP, src, dst, datagram), vlans)


# The demo balances 10.0.0.1 port 80 and closes port 23.
SAMPLES: dict[str, bytes] = {
    "tcp_to_balancer": tcp4("192.0.2.1", "10.0.0.1", 80),
    "udp_to_balancer": udp4("192.0.2.2", "10.0.0.1", 80, 40),
    "vlan_to_balancer": tcp4("192.0.2.3", "10.0.0.1", 80, 9, (5,)),
    "qinq_to_balancer": udp4("192.0.2.4", "10.0.0.1", 80, 3, (5, 6)),
    "tcp_closed_port": tcp4("192.0.2.1", "10.0.0.9", 23),
    "tcp_elsewhere": tcp4("192.0.2.1", "10.0.0.9", 443, 100),
    "udp_dns": udp4("192.0.2.1", "10.0.0.9", 53, 33),
    "icmp": eth(ETH_IP, ipv4(ICMP, "192.0.2.1", "10.0.0.1", b"\x08\0\xf7\xff" + bytes(40), ttl=1)),
    "ip4_options": eth(ETH_IP, b"\x46" + bytes(59)),
    "ip4_short": eth(ETH_IP, b"\x45" + bytes(9)),
    "ip6_tcp": eth(ETH_IP6, ipv6(TCP, "2001:db8::1", "2001:db8::2", bytes(20))),
    "ip6_icmp": eth(ETH_IP6, ipv6(ICMP6, "2001:db8::1", "2001:db8::2", bytes(16))),
    "ip6_short": eth(ETH_IP6, b"\x60" + bytes(13)),
    "arp": eth(ETH_ARP, bytes(28)),
    "minimum": eth(ETH_ARP, b"\0"),
    "large": udp4("192.0.2.1", "10.0.0.1", 9, 255) + bytes(1000),
}

# Newer kernels do not make a socket buffer of an IP packet without its whole header.
SKB_SAMPLES = {
    name: data for name, data in SAMPLES.items() if name not in {"ip4_short", "ip6_short"}
}
