"""Packets of all sorts, and the capture that ``tests/fixtures/packets.pcap`` holds.

``python tests/support/inputs/capture.py`` writes the file again.
"""

from __future__ import annotations

import struct
import sys
from ipaddress import IPv6Address
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from bpfpatch.runs import PcapFrame, write_pcap
from support.inputs.packets import (
    ETH_ARP,
    ETH_IP,
    ETH_IP6,
    ICMP,
    ICMP6,
    SYN,
    TCP,
    UDP,
    csum,
    eth,
    ipv4,
    ipv6,
    tcp,
    tcp4,
    udp,
    udp4,
)

PATH = Path(__file__).parents[2] / "fixtures" / "packets.pcap"
ETH_QINQ = 0x88A8
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
A4, B4 = "192.0.2.1", "198.51.100.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
START_NS = 1_700_000_000_000_000_000
MORE_FRAGMENTS = 0x2000


def arp(operation: int) -> bytes:
    """An ARP request (1) or reply (2)."""
    head = struct.pack(">HHBBH", 1, ETH_IP, 6, 4, operation)
    body = bytes(6) + bytes([192, 0, 2, 1]) + bytes(6) + bytes([192, 0, 2, 9])
    return eth(ETH_ARP, head + body)


def icmp4(size: int) -> bytes:
    """An ICMP echo request."""
    body = struct.pack(">HH", 7, 1) + bytes(index % 256 for index in range(size))
    check = csum(b"\x08\0\0\0" + body)
    return eth(ETH_IP, ipv4(ICMP, A4, B4, b"\x08\0" + struct.pack(">H", check) + body))


def l4_over6(proto: int, segment: bytes, check_at: int) -> bytes:
    """A segment for IPv6, with the checksum that its pseudo header asks for (RFC 8200, 8.1)."""
    pseudo = IPv6Address(A6).packed + IPv6Address(B6).packed
    pseudo += struct.pack(">II", len(segment), proto)
    blank = segment[:check_at] + b"\0\0" + segment[check_at + 2 :]
    check = csum(pseudo + blank) or 0xFFFF
    return blank[:check_at] + struct.pack(">H", check) + blank[check_at + 2 :]


def tcp6(port: int, payload: bytes = b"", flags: int = SYN) -> bytes:
    """A TCP segment for IPv6."""
    head = struct.pack(">HHIIHHHH", 40000, port, 1, 0, 0x5000 | flags, 8192, 0, 0)
    return l4_over6(TCP, head + payload, 16)


def udp6(port: int, payload: bytes = b"") -> bytes:
    """A UDP datagram for IPv6."""
    head = struct.pack(">HHHH", 40000, port, 8 + len(payload), 0)
    return l4_over6(UDP, head + payload, 6)


def icmp6(kind: int, body: bytes) -> bytes:
    """An ICMPv6 message."""
    return l4_over6(ICMP6, struct.pack(">BBH", kind, 0, 0) + body, 2)


def options6(following: int, size: int = 8) -> bytes:
    """An IPv6 header of options, all of it padding (RFC 8200, 4.2)."""
    return bytes([following, size // 8 - 1, 1, size - 4]) + bytes(size - 4)


def fragment4(first: int, more: bool, payload: bytes) -> bytes:
    """A fragment of an IPv4 packet that starts at a multiple of 8."""
    whole = bytearray(ipv4(UDP, A4, B4, payload))
    whole[6:8] = struct.pack(">H", first // 8 | (MORE_FRAGMENTS if more else 0))
    whole[10:12] = bytes(2)
    whole[10:12] = struct.pack(">H", csum(bytes(whole[:20])))
    return eth(ETH_IP, bytes(whole))


def fragment6(first: int, more: bool, payload: bytes) -> bytes:
    """A fragment of an IPv6 packet."""
    head = struct.pack(">BBHI", UDP, 0, first | more, 0x1234)
    return eth(ETH_IP6, ipv6(FRAGMENT, A6, B6, head + payload))


def with_options4(payload: bytes) -> bytes:
    """An IPv4 packet with four bytes of no-operation options."""
    plain = bytearray(ipv4(TCP, A4, B4, b"\1\1\1\1" + payload))
    plain[0] = 0x46
    plain[10:12] = bytes(2)
    plain[10:12] = struct.pack(">H", csum(bytes(plain[:24])))
    return eth(ETH_IP, bytes(plain))


def to_everyone(frame: bytes) -> bytes:
    """The same frame as a broadcast."""
    return b"\xff" * 6 + frame[6:]


def qinq(frame: bytes) -> bytes:
    """A frame with an outer tag of the type that 802.1ad has for it."""
    return frame[:12] + struct.pack(">HH", ETH_QINQ, 7) + frame[12:]


def packets() -> dict[str, bytes]:
    """All packets, by name."""
    payload = bytes(index % 256 for index in range(1400))
    tcp_v4 = tcp(40000, 443, A4, B4, b"hello", flags=0x18)
    udp_v6 = eth(ETH_IP6, ipv6(UDP, A6, B6, udp6(53, b"query")))
    long_udp = udp(40000, 9, A4, B4, payload)
    return {
        "arp-request": to_everyone(arp(1)),
        "arp-reply": arp(2),
        "ip4-tcp-syn-80": tcp4(A4, "10.0.0.1", 80),
        "ip4-tcp-data": eth(ETH_IP, ipv4(TCP, A4, B4, tcp_v4, tos=0x10)),
        "ip4-tcp-closed-port": tcp4(A4, "10.0.0.9", 23),
        "ip4-tcp-ttl-1": eth(ETH_IP, ipv4(TCP, A4, B4, tcp_v4, ttl=1)),
        "ip4-tcp-options": with_options4(tcp_v4),
        "ip4-udp-dns": udp4(A4, B4, 53, 33),
        "ip4-udp-empty": udp4(A4, "10.0.0.1", 80),
        "ip4-icmp-echo": icmp4(48),
        "ip4-other-protocol": eth(ETH_IP, ipv4(47, A4, B4, bytes(24))),
        "ip6-tcp-syn-80": eth(ETH_IP6, ipv6(TCP, A6, B6, tcp6(80))),
        "ip6-tcp-data": eth(ETH_IP6, ipv6(TCP, A6, B6, tcp6(443, b"hello", 0x18))),
        "ip6-udp-dns": udp_v6,
        "ip6-icmp-echo": eth(ETH_IP6, ipv6(ICMP6, A6, B6, icmp6(128, bytes(20)))),
        "ip6-neighbour": eth(ETH_IP6, ipv6(ICMP6, A6, B6, icmp6(135, bytes(20)))),
        "vlan-ip4-tcp": tcp4(A4, "10.0.0.1", 80, 9, (5,)),
        "vlan-ip6-udp": eth(ETH_IP6, ipv6(UDP, A6, B6, udp6(53)), (0x2005,)),
        "vlan-twice-ip4-udp": udp4(A4, "10.0.0.1", 80, 3, (5, 6)),
        "vlan-qinq-ip4-tcp": qinq(tcp4(A4, B4, 22, 4, (9,))),
        "vlan-arp": eth(ETH_ARP, arp(1)[14:], (100,)),
        "ip4-fragment-first": fragment4(0, True, long_udp[:600]),
        "ip4-fragment-middle": fragment4(600, True, long_udp[600:1200]),
        "ip4-fragment-last": fragment4(1200, False, long_udp[1200:]),
        "ip6-hop-by-hop": eth(
            ETH_IP6, ipv6(HOP_BY_HOP, A6, B6, options6(TCP) + tcp6(80, b"x" * 9))
        ),
        "ip6-two-headers": eth(
            ETH_IP6,
            ipv6(HOP_BY_HOP, A6, B6, options6(DESTINATION) + options6(UDP, 16) + udp6(5000)),
        ),
        "ip6-fragment-first": fragment6(0, True, udp6(9, payload[:592])),
        "ip6-fragment-last": fragment6(600, False, payload[:100]),
        "smallest": eth(ETH_ARP, bytes(46)),
        "largest": eth(ETH_IP, ipv4(UDP, A4, B4, udp(40000, 9, A4, B4, bytes(1472)))),
        "ip6-largest": eth(ETH_IP6, ipv6(UDP, A6, B6, udp6(9, bytes(1452)))),
        "length-not-type": eth(40, b"\xaa\xaa\x03" + bytes(37)),
        "unknown-type": eth(0x88CC, bytes(46)),
        "cut-ethernet": eth(ETH_IP, b""),
        "cut-vlan": tcp4(A4, B4, 80, 0, (5,))[:16],
        "cut-ip4": tcp4(A4, B4, 80)[:25],
        "cut-tcp": tcp4(A4, B4, 80)[:40],
        "cut-ip6": udp_v6[:40],
        "cut-udp6": udp_v6[:57],
    }


def capture() -> bytes:
    """The capture of all packets, a millisecond apart."""
    frames = [
        PcapFrame(data, START_NS + 1_000_000 * index)
        for index, data in enumerate(packets().values())
    ]
    return write_pcap(frames)


if __name__ == "__main__":
    PATH.write_bytes(capture())
    print(f"{PATH}: {len(packets())} packets, {PATH.stat().st_size} bytes")
