"""Packet captures: pcap and pcapng, both also packed by gzip.

What the bytes of a header or block mean is dpkt's to say. How far they are believed is said here:
a capture comes from anywhere, so that lengths are checked before anything is read or copied, and
an error says where in the file it is.

Source: draft-ietf-opsawg-pcap, sections 4 and 5; draft-ietf-opsawg-pcapng, section 4.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.isa import ByteOrder

ETHERNET: Final = 1
SNAP_LEN: Final = 1 << 18
"""Bytes of one packet, at most: beyond that the file is broken, not the packet large."""
MOST_UNPACKED: Final = 1 << 28
"""Bytes of a packed capture, once it is unpacked."""

_MICRO: Final = 0xA1B2C3D4
_NANO: Final = 0xA1B23C4D
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_GZIP: Final = b"\x1f\x8b"
_HEADER: Final = "IHHiIII"
_RECORD: Final = "IIII"


@dataclass(frozen=True, slots=True)
class PcapFrame:
    """One captured packet.

    Attributes:
        data: what was captured of it.
        time_ns: when, since 1970.
        n_wire: how long it was on the wire.
    """

    data: bytes
    time_ns: int = 0
    n_wire: int = 0

    @property
    def is_cut(self) -> bool:
        """Whether the capture has kept less of it than there was on the wire."""
        return len(self.data) < self.n_wire


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture.

    Attributes:
        frames: the packets, in order.
        link_type: what a packet starts with; 1 is an Ethernet header.
    """

    frames: tuple[PcapFrame, ...]
    link_type: int = ETHERNET


def read_pcap(data: bytes) -> Capture:
    """Read a capture: pcap or pcapng, as it is or packed by gzip.

    Raises:
        FormatError: it is none, or is cut off.
        UnsupportedError: it is one of another version, of packets of several kinds, or unpacks to
            more than `MOST_UNPACKED` bytes.
    """
    if data.startswith(_GZIP):
        data = _unpacked(data)
    if data.startswith(_PCAPNG):
        from .pcapng import read_pcapng  # noqa: PLC0415 - it needs this module's types

        return read_pcapng(data)
    return _read_classic(data)


def _unpacked(data: bytes) -> bytes:
    """What gzip has packed, also in several members; never more than is allowed."""
    parts, left, room = [], data, MOST_UNPACKED
    while left.startswith(_GZIP):
        inflate = zlib.decompressobj(wbits=31)
        try:
            parts.append(inflate.decompress(left, room + 1))
        except zlib.error as error:
            raise FormatError(f"gzip cannot unpack it: {error}", len(data) - len(left)) from error
        room -= len(parts[-1])
        if room < 0:
            raise UnsupportedError(
                f"it unpacks to more than {MOST_UNPACKED} bytes; unpack it, and split it "
                "(editcap -c)"
            )
        if not inflate.eof:
            raise FormatError("the packed file is cut off", len(data))
        left = inflate.unused_data
    return b"".join(parts)


def _read_classic(data: bytes) -> Capture:
    from dpkt import pcap  # noqa: PLC0415 - it takes a while

    header, record, unit_ns = _forms(pcap, data)
    if len(data) < header.__hdr_len__:
        raise FormatError(
            f"a capture starts with {header.__hdr_len__} bytes, these are {len(data)}", 0
        )
    head = header(data[: header.__hdr_len__])
    if head.v_major != pcap.PCAP_VERSION_MAJOR:
        raise UnsupportedError(
            f"version {head.v_major}.{head.v_minor} of the capture format is not known, 2.4 is"
        )
    return Capture(tuple(_frames(data, record, unit_ns)), head.linktype & 0xFFFF)


def _forms(pcap: Any, data: bytes) -> tuple[Any, Any, int]:
    """Forms of the header and of a record's, and the nanoseconds in a time stamp's unit."""
    magic = int.from_bytes(data[:4], "big")
    record = pcap.MAGIC_TO_PKT_HDR.get(magic) if len(data) >= 4 else None
    if record is None:
        raise FormatError(
            "this is not a packet capture: a pcap file starts with a1b2c3d4 or d4c3b2a1, a pcapng "
            "file with 0a0d0d0a",
            0,
        )
    is_little = issubclass(record, (pcap.LEPktHdr, pcap.LEPktModHdr))
    is_nano = magic in (pcap.TCPDUMP_MAGIC_NANO, pcap.PMUDPCT_MAGIC_NANO)
    return pcap.LEFileHdr if is_little else pcap.FileHdr, record, 1 if is_nano else 1000


def _frames(data: bytes, record: Any, unit_ns: int) -> Iterator[PcapFrame]:
    at, size = struct.calcsize(_HEADER), record.__hdr_len__
    while at < len(data):
        start = at + size
        if start > len(data):
            raise FormatError("the capture ends in the middle of a packet's header", at)
        head = record(data[at:start])
        check_length(len(data), at, start, head.caplen)
        time_ns = head.tv_sec * 1_000_000_000 + head.tv_usec * unit_ns
        yield PcapFrame(data[start : start + head.caplen], time_ns, head.len)
        at = start + head.caplen


def check_length(end: int, at: int, start: int, n_kept: int) -> None:
    """Refuse a packet that is not there, or that no packet is as long as.

    Args:
        end: where the file ends, or the block.
        at: where the record starts.
        start: where the packet starts.
        n_kept: its bytes.

    Raises:
        FormatError: it is such.
    """
    if n_kept > SNAP_LEN:
        raise FormatError(f"a packet of {n_kept} bytes, where {SNAP_LEN} are the most", at)
    if start + n_kept > end:
        raise FormatError(
            f"the capture ends in the middle of a packet of {n_kept} bytes, of which "
            f"{end - start} are there",
            at,
        )


def write_pcap(
    frames: Iterable[PcapFrame | bytes],
    *,
    byteorder: ByteOrder = "little",
    nano: bool = False,
    link_type: int = ETHERNET,
) -> bytes:
    """A capture of packets.

    Args:
        frames: the packets; of bytes alone the time is 0.
        byteorder: of the file's numbers.
        nano: keep nanoseconds, not microseconds.
        link_type: what a packet starts with.
    """
    order = "<" if byteorder == "little" else ">"
    magic, unit_ns = (_NANO, 1) if nano else (_MICRO, 1000)
    parts = [struct.pack(order + _HEADER, magic, 2, 4, 0, 0, SNAP_LEN, link_type)]
    for one in frames:
        frame = one if isinstance(one, PcapFrame) else PcapFrame(one)
        seconds, rest = divmod(frame.time_ns, 1_000_000_000)
        n_wire = max(frame.n_wire, len(frame.data))
        head = struct.pack(order + _RECORD, seconds, rest // unit_ns, len(frame.data), n_wire)
        parts.append(head + frame.data)
    return b"".join(parts)
