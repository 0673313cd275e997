"""Captures in blocks, and captures that are packed."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from typing import Any

import pytest
from dpkt import pcapng

from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.runs import PcapFrame, pcap, read_pcap, write_pcap

# draft-ietf-opsawg-pcapng, sections 4.1 to 4.4, written down byte by byte: little endian; an
# interface of Ethernet that keeps 64 bytes and counts nanoseconds; a packet of 3 bytes, captured
# of 60, at 2 s and 5 ns, with a comment; a packet without a time; a block of statistics.
SECTION = bytes.fromhex("0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000")
INTERFACE = bytes.fromhex(
    "01000000 20000000 0100 0000 40000000 0900 0100 09000000 0000 0000 20000000"
)
PACKET = bytes.fromhex(
    "06000000 2c000000 00000000 00000000 05943577 03000000 3c000000 aabbcc00"
    "0100 0100 21000000 2c000000"
)
SIMPLE = bytes.fromhex("03000000 14000000 02000000 ddee0000 14000000")
STATISTICS = bytes.fromhex("05000000 14000000 00000000 00000000 14000000")
BY_HAND = SECTION + INTERFACE + STATISTICS + PACKET + SIMPLE


def test_reads_blocks_written_by_hand() -> None:
    """Link type, times and lengths are where the format has them; other blocks are skipped."""
    capture = read_pcap(BY_HAND)
    assert capture.link_type == 1
    assert capture.frames == (
        PcapFrame(b"\xaa\xbb\xcc", 2_000_000_005, 60),
        PcapFrame(b"\xdd\xee", 0, 2),
    )


@pytest.mark.parametrize("order", ["", "LE"])
def test_reads_what_dpkt_writes(order: str) -> None:
    """Both byte orders, times in microseconds where the interface says nothing else."""
    parts: list[Any] = [
        getattr(pcapng, "SectionHeaderBlock" + order)(),
        getattr(pcapng, "InterfaceDescriptionBlock" + order)(),
        getattr(pcapng, "EnhancedPacketBlock" + order)(ts_low=7, pkt_data=b"12345"),
        getattr(pcapng, "PacketBlock" + order)(ts_low=8, pkt_data=b"678"),
    ]
    if order:
        parts[0].bom = pcapng.BYTE_ORDER_MAGIC
    capture = read_pcap(b"".join(bytes(one) for one in parts))
    assert capture.frames == (PcapFrame(b"12345", 7000, 5), PcapFrame(b"678", 8000, 3))


def test_sections_have_their_own_interfaces() -> None:
    """After a new section, which may have another byte order, interfaces count from 0 again."""
    other = b"".join(
        bytes(one)
        for one in (
            pcapng.SectionHeaderBlock(),
            pcapng.InterfaceDescriptionBlock(),
            pcapng.EnhancedPacketBlock(pkt_data=b"x"),
        )
    )
    assert [one.data for one in read_pcap(BY_HAND + other).frames][-1] == b"x"
    with pytest.raises(FormatError, match="the section has described 0"):
        read_pcap(BY_HAND + SECTION + PACKET)


WHOLE = (len(SECTION), *(len(SECTION + INTERFACE) + n for n in (0, 20, 64)))


@pytest.mark.parametrize(("n_bytes", "n_packets"), [*zip(WHOLE, (0, 0, 0, 1), strict=True)])
def test_whole_blocks_are_read(n_bytes: int, n_packets: int) -> None:
    """A capture that ends where a block does is a capture."""
    assert len(read_pcap(BY_HAND[:n_bytes]).frames) == n_packets


@pytest.mark.parametrize("n_bytes", [n for n in range(4, len(BY_HAND)) if n not in WHOLE])
def test_a_cut_capture_is_refused(n_bytes: int) -> None:
    """Whatever else is cut off, there is a FormatError with a place."""
    with pytest.raises(FormatError) as caught:
        read_pcap(BY_HAND[:n_bytes])
    assert caught.value.byte_off is not None


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (len(SECTION) + 4, 8, "a block has 8 bytes"),
        (len(SECTION) + 4, 33, "multiple of 4"),
        (len(SECTION) + 4, 0xFFFF_FFF0, "ends in the middle of a block"),
        (len(SECTION) + len(INTERFACE) - 4, 28, "32 bytes at its start and 28 at its end"),
        (len(BY_HAND) - len(SIMPLE) - len(PACKET) + 8, 9, "a packet is of interface 9"),
        (len(BY_HAND) - len(SIMPLE) - len(PACKET) + 20, 0xFFFF_FFFF, "4294967295 bytes"),
        (len(BY_HAND) - len(SIMPLE) - len(PACKET) + 20, 20, "in the middle of a packet of 20"),
        (len(BY_HAND) - len(SIMPLE) + 8, 64, "in the middle of a packet of 64"),
        (8, 0, "does not say its byte order"),
    ],
)
def test_broken_blocks_are_refused(at: int, value: int, message: str) -> None:
    """A length or number that cannot be is named, with its place."""
    data = bytearray(BY_HAND)
    data[at : at + 4] = struct.pack("<I", value)
    with pytest.raises(FormatError, match=message):
        read_pcap(bytes(data))


def test_another_version_and_mixed_links_are_refused() -> None:
    """What is not known is no reason to guess."""
    data = bytearray(BY_HAND)
    data[12] = 2
    with pytest.raises(UnsupportedError, match=r"2\.0"):
        read_pcap(bytes(data))
    raw = bytes(pcapng.InterfaceDescriptionBlockLE(linktype=101))
    more = bytes(pcapng.EnhancedPacketBlockLE(iface_id=1, pkt_data=b"x"))
    with pytest.raises(UnsupportedError, match="1, 101"):
        read_pcap(BY_HAND + raw + more)


@pytest.mark.parametrize("data", [write_pcap([b"abc"]), BY_HAND])
def test_packed_captures_are_unpacked(data: bytes) -> None:
    """A capture that gzip packed is read as the capture, in several members, too."""
    assert read_pcap(gzip.compress(data)) == read_pcap(data)
    half = len(data) // 2
    assert read_pcap(gzip.compress(data[:half]) + gzip.compress(data[half:])) == read_pcap(data)


def test_broken_packing_is_refused() -> None:
    """What is cut off or damaged on the way is no capture."""
    data = gzip.compress(BY_HAND)
    with pytest.raises(FormatError, match="cut off"):
        read_pcap(data[:-9])
    with pytest.raises(FormatError, match="gzip cannot unpack it"):
        read_pcap(data[:20] + b"\xff\xff\xff" + data[23:])


def test_unpacking_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that unpacks to far more than is allowed is refused before all of it is in memory."""
    monkeypatch.setattr(pcap, "MOST_UNPACKED", 1 << 20)
    for data in (gzip.compress(bytes(8 << 20)), gzip.compress(bytes(1 << 19)) * 8):
        tracemalloc.start()
        try:
            with pytest.raises(UnsupportedError, match="unpacks to more than 1048576 bytes"):
                read_pcap(data)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
