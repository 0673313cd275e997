"""Checksums of packets: which there are, which are right, and putting them right again.

A program that drops packets with a wrong checksum hides all that comes after from inputs that are
changed byte by byte. So what was right before a change is made right after it.

Source: RFC 791, 768, 9293, 792, 4443 and 8200 (the pseudo header); IEEE 802.1Q (tags).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from .packets import ICMP, ICMP6, IP, IP6, QINQ, TCP, UDP, VLAN, checksum

_MACS: Final = 12
_TAGS: Final = 2
_FIELD_OF: Final = {TCP: 16, UDP: 6, ICMP: 2, ICMP6: 2}
"""Where in its header each protocol has its checksum."""


TRANSPORT: Final = frozenset({"transport"})


class Sum(NamedTuple):
    """A checksum of a packet.

    Attributes:
        name: which one it is.
        at: byte offset of its field.
        start: of what it covers.
        end: after that.
        pseudo: bytes that count as if they came before.
    """

    name: str
    at: int
    start: int
    end: int
    pseudo: bytes = b""


def sums_of(packet: bytes) -> Iterator[Sum]:
    """The checksums of a packet's network and transport header, as far as they are all there."""
    at = _MACS
    for _ in range(_TAGS):
        if _word(packet, at) not in (VLAN, QINQ):
            break
        at += 4
    ethertype, at = _word(packet, at), at + 2
    if ethertype == IP and len(packet) >= at + 20:
        n_header = 4 * (packet[at] & 0xF)
        if n_header < 20 or at + n_header > len(packet):
            return
        yield Sum("network", at + 10, at, at + n_header)
        end = min(at + max(_word(packet, at + 2), n_header), len(packet))
        if not _word(packet, at + 6) & 0x3FFF:  # no fragment
            addresses = packet[at + 12 : at + 20]
            yield from _transport(packet, packet[at + 9], at + n_header, end, addresses)
    elif ethertype == IP6 and len(packet) >= at + 40:
        end = min(at + 40 + _word(packet, at + 4), len(packet))
        yield from _transport(packet, packet[at + 6], at + 40, end, packet[at + 8 : at + 40])


def _transport(packet: bytes, proto: int, start: int, end: int, addresses: bytes) -> Iterator[Sum]:
    field = start + _FIELD_OF.get(proto, end)
    if field + 2 > end:
        return
    pseudo = b"" if proto == ICMP else addresses + struct.pack(">HH", proto, end - start)
    yield Sum("transport", field, start, end, pseudo)


def _word(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


def right_sums(packet: bytes) -> frozenset[str]:
    """The names of the checksums that are right."""
    return frozenset(
        one.name
        for one in sums_of(packet)
        if checksum(one.pseudo + packet[one.start : one.end]) == 0
    )


def repaired(packet: bytes, names: frozenset[str]) -> bytes:
    """The packet with these checksums made right."""
    out = bytearray(packet)
    for one in sums_of(packet):
        if one.name in names:
            out[one.at : one.at + 2] = bytes(2)
            value = checksum(one.pseudo + bytes(out[one.start : one.end]))
            out[one.at : one.at + 2] = value.to_bytes(2, "big")
    return bytes(out)


def spoiled(packet: bytes) -> bytes:
    """The packet with all of its checksums wrong."""
    out = bytearray(packet)
    for one in sums_of(packet):
        out[one.at] ^= 0x55
    return bytes(out)
