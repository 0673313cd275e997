"""Captures in the newer format, pcapng, which is blocks.

Source: draft-ietf-opsawg-pcapng, section 4. What a block's fields are is dpkt's to say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from bpfpatch.errors import FormatError, UnsupportedError

from .pcap import Capture, PcapFrame, check_length

_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_MAGIC: Final = 0x1A2B3C4D
_FRAME: Final = 12
"""Bytes of a block around its body: type, length, and the length again."""
_MOST_OPTIONS: Final = 1 << 12
"""Bytes of an interface's options that are looked at: more than there are kinds of them."""
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Interface:
    """What packets were captured at.

    Attributes:
        link_type: what they start with.
        snap_len: the most that is kept of one; 0 for all.
        units: of time in a second.
        start: seconds that times count from.
    """

    link_type: int
    snap_len: int
    units: int = 1_000_000
    start: int = 0

    def time_ns(self, high: int, low: int) -> int:
        """A time stamp in nanoseconds."""
        return self.start * _NS + (high << 32 | low) * _NS // self.units


@dataclass(slots=True)
class _Section:
    """Blocks of one byte order, whose interfaces count from 0."""

    order: str
    interfaces: list[_Interface] = field(default_factory=list)


def read_pcapng(data: bytes) -> Capture:
    """Read a capture in blocks; those that say nothing of packets are skipped.

    Raises:
        FormatError: a block is broken or cut off.
        UnsupportedError: another version, or packets that do not all start with the same.
    """
    found = list(_packets(data))
    links = {link for link, _ in found}
    if len(links) > 1:
        raise UnsupportedError(
            "its packets come from interfaces with different link types, "
            f"{', '.join(map(str, sorted(links)))}; take those of one (tshark -r IN -Y "
            "'frame.interface_id == 0' -w OUT)"
        )
    return Capture(tuple(frame for _, frame in found), *links)


def _packets(data: bytes) -> Iterator[tuple[int, PcapFrame]]:
    """Link type and packet of each."""
    section: _Section | None = None
    for at, kind, block in _blocks(data):
        if kind == _SECTION:
            section = _Section(_order(block, at))
            _check_version(block, section.order)
            continue
        assert section is not None  # the first block is one
        if kind == _INTERFACE:
            section.interfaces.append(_interface(block, at, section.order))
        elif kind in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
            yield _packet(at, kind, block, section)


def _blocks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Place, kind and bytes of each block."""
    at, order = 0, "<"
    while at < len(data):
        if at + _FRAME > len(data):
            raise FormatError("the capture ends in the middle of a block's header", at)
        (kind,) = struct.unpack_from(f"{order}I", data, at)
        if kind == _SECTION:  # its number is the same in both byte orders
            order = _order(data[at : at + _FRAME], at)
        (size,) = struct.unpack_from(f"{order}I", data, at + 4)
        if size < _FRAME or size % 4:
            raise FormatError(
                f"a block has {size} bytes: it takes {_FRAME}, and a multiple of 4", at
            )
        if at + size > len(data):
            raise FormatError(
                f"the capture ends in the middle of a block of {size} bytes, of which "
                f"{len(data) - at} are there",
                at,
            )
        (again,) = struct.unpack_from(f"{order}I", data, at + size - 4)
        if again != size:
            raise FormatError(f"a block has {size} bytes at its start and {again} at its end", at)
        yield at, kind, data[at : at + size]
        at += size


def _order(block: bytes, at: int) -> str:
    for order in "<>":
        if struct.unpack_from(f"{order}I", block, 8)[0] == _MAGIC:
            return order
    raise FormatError("a section does not say its byte order", at)


def _form(name: str, order: str) -> Any:
    from dpkt import pcapng  # noqa: PLC0415 - it takes a while

    return getattr(pcapng, name + ("LE" if order == "<" else ""))


def _head(name: str, order: str, block: bytes, at: int) -> Any:
    """The fields of a block, its options and packet left out."""
    form = _form(name, order)
    if len(block) < form.__hdr_len__:
        raise FormatError(f"a block of {len(block)} bytes is too short for its kind", at)
    made = form()
    made.unpack_hdr(block)
    return made


def _check_version(block: bytes, order: str) -> None:
    head = _head("SectionHeaderBlock", order, block, 0)
    if head.v_major != 1:
        raise UnsupportedError(
            f"version {head.v_major}.{head.v_minor} of pcapng is not known, 1.0 is"
        )


def _interface(block: bytes, at: int, order: str) -> _Interface:
    head = _head("InterfaceDescriptionBlock", order, block, at)
    out = {"units": 1_000_000, "start": 0}
    for code, value in _options(block[head.__hdr_len__ - 4 : -4], order):
        if code == 9 and len(value) >= 1:
            power = value[0] & 0x7F
            out["units"] = 2**power if value[0] & 0x80 else 10**power
        elif code == 14 and len(value) == 8:
            (out["start"],) = struct.unpack(f"{order}q", value)
    return _Interface(head.linktype, head.snaplen, **out)


def _options(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Code and value of each option, up to the end of them."""
    at = 0
    while at + 4 <= min(len(data), _MOST_OPTIONS):
        code, size = struct.unpack_from(f"{order}HH", data, at)
        if not code:
            return
        yield code, data[at + 4 : at + 4 + size]
        at += 4 + (size + 3) // 4 * 4


def _packet(at: int, kind: int, block: bytes, section: _Section) -> tuple[int, PcapFrame]:
    if kind == _SIMPLE_PACKET:
        return _simple_packet(at, block, section)
    name = "EnhancedPacketBlock" if kind == _PACKET else "PacketBlock"
    head = _head(name, section.order, block, at)
    first = head.__hdr_len__ - 4
    check_length(at + len(block) - 4, at, at + first, head.caplen)
    interface = _interface_of(section, head.iface_id, at)
    time_ns = interface.time_ns(head.ts_high, head.ts_low)
    frame = PcapFrame(block[first : first + head.caplen], time_ns, head.pkt_len)
    return interface.link_type, frame


def _simple_packet(at: int, block: bytes, section: _Section) -> tuple[int, PcapFrame]:
    """A packet of the first interface, without a time, and as long as that keeps of one."""
    if len(block) < _FRAME + 4:
        raise FormatError(f"a block of {len(block)} bytes is too short for its kind", at)
    (n_wire,) = struct.unpack_from(f"{section.order}I", block, 8)
    interface = _interface_of(section, 0, at)
    n_kept = min(n_wire, interface.snap_len or n_wire)
    check_length(at + len(block) - 4, at, at + 12, n_kept)
    return interface.link_type, PcapFrame(block[12 : 12 + n_kept], 0, n_wire)


def _interface_of(section: _Section, number: int, at: int) -> _Interface:
    if number >= len(section.interfaces):
        raise FormatError(
            f"a packet is of interface {number}, and the section has described "
            f"{len(section.interfaces)}",
            at,
        )
    return section.interfaces[number]
