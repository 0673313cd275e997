"""The header of .BTF: where types, strings and record layouts are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from bpfpatch.errors import FormatError

from .wire import ByteOrder, WireSpan, read_preamble, read_words

#: hdr_len up to linux v7.0, and with the layout section.
HEADER_LEN = 24
HEADER_LEN_LAYOUT = 32


@dataclass(frozen=True, slots=True)
class BtfHeader:
    """What the header says, checked against the input's length.

    Attributes:
        byteorder: of all numbers.
        hdr_len: bytes of the header, with parts that are not known here.
        types: the type section.
        strings: the string section.
        layout: record sizes of all kinds that the writer knew; length 0 if absent.
        extra: header bytes after the fields that are known here.
    """

    byteorder: ByteOrder
    hdr_len: int
    types: WireSpan
    strings: WireSpan
    layout: WireSpan
    extra: bytes


def read_header(data: bytes, byteorder: ByteOrder | None) -> BtfHeader:
    """Read and check a header.

    The sections may come in any order and with gaps, but not overlap and not
    reach outside.

    Source: linux v6.1, kernel/bpf/btf.c, btf_parse_hdr() and
    btf_check_sec_info(); tools/lib/bpf/btf.c, btf_parse_hdr(), which accepts
    gaps.
    """
    order, hdr_len = read_preamble(data, byteorder, ".BTF")
    if hdr_len < HEADER_LEN:
        raise FormatError(f"the .BTF header claims {hdr_len} bytes, it has {HEADER_LEN}", 4)
    has_layout = hdr_len >= HEADER_LEN_LAYOUT
    fields = read_words(data, 8, 6 if has_layout else 4, order)
    spans = [
        _read_span(data, hdr_len, fields[at : at + 2], 8 + 4 * at, name)
        for at, name in zip(range(0, len(fields), 2), ("type", "string", "layout"), strict=False)
    ]
    for span, name in ((spans[0], "type"), *((span, "layout") for span in spans[2:])):
        if (span.byte_off - hdr_len) % 4:
            raise FormatError(
                f"the {name} section starts {span.byte_off - hdr_len:#x} bytes after the header, "
                "that has to be a multiple of 4",
                span.byte_off,
            )
    _refuse_overlap(spans)
    known = HEADER_LEN_LAYOUT if has_layout else HEADER_LEN
    return BtfHeader(
        byteorder=order,
        hdr_len=hdr_len,
        types=spans[0],
        strings=spans[1],
        layout=spans[2] if has_layout else WireSpan(hdr_len, 0),
        extra=data[known:hdr_len],
    )


def _read_span(
    data: bytes, hdr_len: int, field: tuple[int, ...], byte_off: int, name: str
) -> WireSpan:
    start, length = field
    room = len(data) - hdr_len
    if start + length > room:
        raise FormatError(
            f"the {name} section claims {length} bytes from {start:#x}, {room} follow the header",
            byte_off,
        )
    return WireSpan(hdr_len + start, length)


def _refuse_overlap(spans: list[WireSpan]) -> None:
    used = sorted((span for span in spans if span.length), key=lambda span: span.byte_off)
    for before, after in pairwise(used):
        if before.end > after.byte_off:
            raise FormatError(
                f"two .BTF sections overlap: one ends at {before.end:#x}", after.byte_off
            )
