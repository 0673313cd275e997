"""Packet captures in the classic pcap format, both byte orders, micro- and nanoseconds.

Source: draft-ietf-opsawg-pcap, sections 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.isa import ByteOrder

ETHERNET: Final = 1
_MICRO: Final = 0xA1B2C3D4
_NANO: Final = 0xA1B23C4D
_PCAPNG: Final = 0x0A0D0D0A
_HEADER: Final = "IHHiIII"
_RECORD: Final = "IIII"
_SNAP_LEN: Final = 1 << 18
"""Bytes of one packet, at most: beyond that the file is broken, not the packet large."""


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
    """Read a capture.

    Raises:
        FormatError: it is none, or is cut off.
        UnsupportedError: it is one of another format.
    """
    order, unit_ns = _magic(data)
    size = struct.calcsize(order + _HEADER)
    if len(data) < size:
        raise FormatError(f"a capture starts with {size} bytes, these are {len(data)}", 0)
    _, major, minor, _, _, _, link = struct.unpack_from(order + _HEADER, data)
    if major != 2:
        raise UnsupportedError(
            f"version {major}.{minor} of the capture format is not known, 2.4 is"
        )
    frames = []
    at = size
    while at < len(data):
        frame, at = _frame(data, at, order, unit_ns)
        frames.append(frame)
    return Capture(tuple(frames), link & 0xFFFF)


def _magic(data: bytes) -> tuple[str, int]:
    """Byte order for struct, and the nanoseconds in a unit of a time stamp's fraction."""
    for order in "<>":
        found = struct.unpack(order + "I", data[:4])[0] if len(data) >= 4 else 0
        if found == _PCAPNG:
            raise UnsupportedError(
                "this is a pcapng file; convert it: editcap -F pcap IN.pcapng OUT.pcap"
            )
        if found in (_MICRO, _NANO):
            return order, 1 if found == _NANO else 1000
    raise FormatError("this is no packet capture: a pcap file starts with a1b2c3d4 or d4c3b2a1", 0)


def _frame(data: bytes, at: int, order: str, unit_ns: int) -> tuple[PcapFrame, int]:
    start = at + struct.calcsize(order + _RECORD)
    if start > len(data):
        raise FormatError("the capture ends in the middle of a packet's header", at)
    seconds, fraction, n_kept, n_wire = struct.unpack_from(order + _RECORD, data, at)
    if n_kept > _SNAP_LEN:
        raise FormatError(f"a packet of {n_kept} bytes, where {_SNAP_LEN} are the most", at)
    if start + n_kept > len(data):
        raise FormatError(
            f"the capture ends in the middle of a packet of {n_kept} bytes, of which "
            f"{len(data) - start} are there",
            at,
        )
    time_ns = seconds * 1_000_000_000 + fraction * unit_ns
    return PcapFrame(data[start : start + n_kept], time_ns, n_wire), start + n_kept


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
    parts = [struct.pack(order + _HEADER, magic, 2, 4, 0, 0, _SNAP_LEN, link_type)]
    for one in frames:
        frame = one if isinstance(one, PcapFrame) else PcapFrame(one)
        seconds, rest = divmod(frame.time_ns, 1_000_000_000)
        n_wire = max(frame.n_wire, len(frame.data))
        head = struct.pack(order + _RECORD, seconds, rest // unit_ns, len(frame.data), n_wire)
        parts.append(head + frame.data)
    return b"".join(parts)
