"""The numbers of the format: kinds, bit fields, record sizes, headers.

Everything else in this package is derived from what is written here.

Source: linux v6.1, include/uapi/linux/btf.h and Documentation/bpf/btf.rst.
Since linux v7.1 the kind has 7 bits instead of 5 and the vlen 24 instead of
16, both out of bits that had to be zero, and a layout section may tell the
record sizes of kinds that a reader does not know.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from bpfpatch.errors import FormatError

ByteOrder = Literal["little", "big"]

MAGIC = 0xEB9F
VERSION = 1
#: The kernel's own limits, BTF_MAX_TYPE and BTF_MAX_NAME_OFFSET.
MAX_TYPE_ID = 0x000FFFFF
MAX_STR_OFF = 0x00FFFFFF
MAX_VLEN = 0x00FFFFFF
#: btf_type: name_off, info, size or type.
HEAD_WORDS = 3
#: How deep a chain of references may go: MAX_RESOLVE_DEPTH of the kernel (kernel/bpf/btf.c)
#: and of libbpf (btf__resolve_size()).
MAX_DEPTH = 32


class Kind(IntEnum):
    """What a type record describes."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: Kinds that only wrap another type: resolve() walks through them.
MODIFIERS = frozenset(
    {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG},
)

#: Words after the head: (once, for each of vlen items).
BODY_WORDS: dict[Kind, tuple[int, int]] = {
    Kind.INT: (1, 0),
    Kind.PTR: (0, 0),
    Kind.ARRAY: (3, 0),
    Kind.STRUCT: (0, 3),
    Kind.UNION: (0, 3),
    Kind.ENUM: (0, 2),
    Kind.FWD: (0, 0),
    Kind.TYPEDEF: (0, 0),
    Kind.VOLATILE: (0, 0),
    Kind.CONST: (0, 0),
    Kind.RESTRICT: (0, 0),
    Kind.FUNC: (0, 0),  # its vlen is the linkage
    Kind.FUNC_PROTO: (0, 2),
    Kind.VAR: (1, 0),
    Kind.DATASEC: (0, 3),
    Kind.FLOAT: (0, 0),
    Kind.DECL_TAG: (1, 0),
    Kind.TYPE_TAG: (0, 0),
    Kind.ENUM64: (0, 3),
}


def info_kind(info: int) -> int:
    """The kind's number in an info word."""
    return info >> 24 & 0x7F


def info_vlen(info: int) -> int:
    """The number of items (or a function's linkage) in an info word."""
    return info & MAX_VLEN


def info_flag(info: int) -> bool:
    """The kind_flag of an info word."""
    return bool(info >> 31)


@dataclass(frozen=True, slots=True)
class WireSpan:
    """A part of the input.

    Attributes:
        byte_off: first byte, from the start of the input.
        length: bytes.
    """

    byte_off: int
    length: int

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.byte_off + self.length


def read_preamble(data: bytes, byteorder: ByteOrder | None, what: str) -> tuple[ByteOrder, int]:
    """Check what .BTF and .BTF.ext start with.

    Args:
        data: the whole section.
        byteorder: what it must be; None takes it from the magic.
        what: the section's name, for messages.

    Returns:
        The byte order and the header's length.
    """
    if len(data) < 8:
        raise FormatError(f"{what} holds {len(data)} bytes, its header starts with 8", len(data))
    orders: dict[bytes, ByteOrder] = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}
    found = orders.get(data[:2])
    if found is None:
        raise FormatError(f"{what} starts with {data[:2].hex()}, the magic is 9feb or eb9f", 0)
    if byteorder is not None and found != byteorder:
        raise FormatError(f"{what} is {found}-endian, {byteorder}-endian is asked for", 0)
    if data[2] != VERSION:
        raise FormatError(f"{what} has version {data[2]}, only {VERSION} is defined", 2)
    if data[3] != 0:
        raise FormatError(f"{what} has flags {data[3]:#x}, none are defined", 3)
    hdr_len = int.from_bytes(data[4:8], found)
    if hdr_len > len(data):
        raise FormatError(f"{what} holds {len(data)} bytes, its header claims {hdr_len}", 4)
    return found, hdr_len


def read_words(data: bytes, byte_off: int, count: int, byteorder: ByteOrder) -> tuple[int, ...]:
    """``count`` u32 words; the caller has checked that they are there."""
    order = "<" if byteorder == "little" else ">"
    return struct.unpack_from(f"{order}{count}I", data, byte_off)


def pack_words(words: list[int] | tuple[int, ...], byteorder: ByteOrder) -> bytes:
    """The words as bytes; each fits 32 bits."""
    order = "<" if byteorder == "little" else ">"
    return struct.pack(f"{order}{len(words)}I", *words)
