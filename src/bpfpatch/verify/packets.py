"""Packets to begin with: one of each kind that parsers know, all of them valid.

Formats: RFC 791, 8200, 9293, 768, 792, 826, 4443; VLAN tags IEEE 802.1Q.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

IP, IP6, ARP, VLAN, QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
ICMP, IPIP, TCP, UDP, GRE, ICMP6 = 1, 4, 6, 17, 47, 58
_HOP_BY_HOP, _FRAGMENT = 0, 44
_MACS: Final = bytes.fromhex("02000000000202000000000a")
_A, _B = bytes([10, 0, 0, 1]), bytes([192, 0, 2, 7])
_A6 = bytes.fromhex("20010db8000000000000000000000001")
_B6 = bytes.fromhex("20010db8000000000000000000000002")
_DATA: Final = b"bpfpatch" * 4


def checksum(data: bytes) -> int:
    """The internet checksum. Source: RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(ethertype: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """An Ethernet frame, with (ethertype, tag) of each VLAN tag."""
    between = b"".join(struct.pack(">HH", *tag) for tag in tags)
    return _MACS + between + struct.pack(">H", ethertype) + payload


def ip4(proto: int, payload: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    """An IPv4 packet, its checksum right."""
    n_words = 5 + len(options) // 4
    size = 4 * n_words + len(payload)

    def header(check: int) -> bytes:
        fixed = (0x40 | n_words, 0, size, 1, fragment, 64, proto, check)
        return struct.pack(">BBHHHBBH", *fixed) + _B + _A + options

    return header(checksum(header(0))) + payload


def ip6(proto: int, payload: bytes) -> bytes:
    """An IPv6 packet."""
    return struct.pack(">IHBB", 6 << 28, len(payload), proto, 64) + _B6 + _A6 + payload


def tcp(sport: int = 40000, dport: int = 80, flags: int = 0x02, options: bytes = b"") -> bytes:
    """A TCP segment, its checksum left out: it depends on the addresses."""
    n_words = 5 + len(options) // 4
    fixed = (sport, dport, 1, 0, n_words << 12 | flags, 8192, 0, 0)
    return struct.pack(">HHIIHHHH", *fixed) + options + _DATA


def udp(sport: int = 40000, dport: int = 53) -> bytes:
    """A UDP datagram, without a checksum."""
    return struct.pack(">HHHH", sport, dport, 8 + len(_DATA), 0) + _DATA


def icmp(kind: int = 8) -> bytes:
    """An ICMP message, an echo request by default."""
    body = struct.pack(">BBHHH", kind, 0, 0, 1, 1) + _DATA
    return body[:2] + struct.pack(">H", checksum(body)) + body[4:]


def templates() -> Iterator[bytes]:
    """One packet of each kind, the common ones first."""
    yield frame(IP, ip4(TCP, tcp()))
    yield frame(IP, ip4(UDP, udp()))
    yield frame(IP6, ip6(TCP, tcp()))
    yield frame(IP6, ip6(UDP, udp()))
    yield frame(IP, ip4(ICMP, icmp()))
    yield frame(IP6, ip6(ICMP6, icmp(128)))
    yield frame(ARP, struct.pack(">HHBBH", 1, IP, 6, 4, 1) + _MACS[6:] + _B + bytes(6) + _A)
    yield frame(IP, ip4(TCP, tcp()), ((VLAN, 5),))
    yield frame(IP6, ip6(UDP, udp()), ((QINQ, 7), (VLAN, 5)))
    yield frame(IP, ip4(TCP, tcp(options=b"\x02\x04\x05\xb4\x01\x01\x01\0"), options=b"\x01" * 8))
    yield frame(IP, ip4(UDP, udp(), fragment=0x2001))
    yield frame(IP, ip4(IPIP, ip4(TCP, tcp(dport=443, flags=0x10))))
    yield frame(IP, ip4(GRE, struct.pack(">HH", 0, IP) + ip4(UDP, udp())))
    yield frame(IP6, ip6(_HOP_BY_HOP, struct.pack(">BB", TCP, 0) + bytes(6) + tcp()))
    yield frame(IP6, ip6(_FRAGMENT, struct.pack(">BBHI", UDP, 0, 0, 1) + udp()))
    yield frame(IP, ip4(TCP, tcp(dport=22)) + bytes(1200))
    yield _MACS + b"\x88\xb5"
