"""Captures: read in every form, and refused with a place where they are broken."""

from __future__ import annotations

import struct

import pytest

from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.runs import PcapFrame, read_pcap, write_pcap

# draft-ietf-opsawg-pcap, sections 4 and 5, written down byte by byte: little endian,
# microseconds; one packet of 3 bytes, captured of 60, at second 2, microsecond 5.
BY_HAND = bytes.fromhex(
    "d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000"
    "02000000 05000000 03000000 3c000000 aabbcc"
)


def test_reads_bytes_written_by_hand() -> None:
    """Magic, version, link type, time and both lengths are where the format has them."""
    capture = read_pcap(BY_HAND)
    assert capture.link_type == 1
    assert capture.frames == (PcapFrame(b"\xaa\xbb\xcc", 2_000_005_000, 60),)


def test_writes_what_was_written_by_hand() -> None:
    """The same packet is written as the same bytes."""
    assert write_pcap([PcapFrame(b"\xaa\xbb\xcc", 2_000_005_000, 60)]) == BY_HAND


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("nano", [False, True])
def test_all_forms_are_read(byteorder: str, nano: bool) -> None:
    """Both byte orders and both units of time give the packets back."""
    frames = (PcapFrame(b"first", 1_500_000_007_000, 5), PcapFrame(b"", 1_500_000_008_000, 0))
    data = write_pcap(frames, byteorder=byteorder, nano=nano)  # type: ignore[arg-type]
    assert read_pcap(data).frames == frames


def test_nanoseconds_are_kept() -> None:
    """Where the file has nanoseconds, none is lost; where it has not, they are cut off."""
    frame = PcapFrame(b"x", 1_234_567_891, 1)
    assert read_pcap(write_pcap([frame], nano=True)).frames[0].time_ns == 1_234_567_891
    assert read_pcap(write_pcap([frame])).frames[0].time_ns == 1_234_567_000


def test_bytes_alone_are_a_packet() -> None:
    """A packet without a time has time 0 and its own length."""
    assert read_pcap(write_pcap([b"abc"])).frames == (PcapFrame(b"abc", 0, 3),)


def test_a_capture_without_packets() -> None:
    """A header alone is a capture, too."""
    assert read_pcap(BY_HAND[:24]).frames == ()


@pytest.mark.parametrize("n_bytes", [n for n in range(1, len(BY_HAND)) if n != 24])
def test_a_cut_capture_is_refused(n_bytes: int) -> None:
    """Whatever is cut off, there is a FormatError with a place, or all whole packets are read."""
    with pytest.raises(FormatError) as caught:
        read_pcap(BY_HAND[:n_bytes])
    assert caught.value.byte_off is not None


@pytest.mark.parametrize("data", [b"", b"abc", b"\x7fELF" + bytes(60), bytes(24)])
def test_something_else_is_refused(data: bytes) -> None:
    """What is no capture is named so."""
    with pytest.raises(FormatError, match="not a packet capture"):
        read_pcap(data)


def test_another_version_is_refused() -> None:
    """A version that does not exist is no reason to guess."""
    with pytest.raises(UnsupportedError, match=r"3\.4"):
        read_pcap(BY_HAND[:4] + struct.pack("<H", 3) + BY_HAND[6:])


def test_an_absurd_length_is_refused() -> None:
    """A packet of gigabytes is a broken file, not a reason to wait for it."""
    data = BY_HAND[:32] + struct.pack("<I", 0xFFFF_FFFF) + BY_HAND[36:]
    with pytest.raises(FormatError, match="4294967295 bytes"):
        read_pcap(data)
