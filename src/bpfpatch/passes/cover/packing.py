"""Text that travels compressed in a section, and is no larger unpacked than its size may mean."""

from __future__ import annotations

import zlib
from typing import Any, Final

from bpfpatch.errors import FormatError

RATIO_MOST: Final = 32
"""How many times as long as the section its text may be: sections of real objects unpack to about
eight times, and what is made of the text takes some 25 times its size again."""
ROOM: Final = 1 << 20
"""Bytes that a section of any length may unpack to."""


def most(n_packed: int) -> int:
    """Bytes that a section of this many may unpack to."""
    return ROOM + RATIO_MOST * n_packed


def pack(data: bytes) -> bytes:
    """Compress, unless `unpack` would then refuse it for being suspiciously small."""
    packed = zlib.compress(data)
    return packed if len(data) <= most(len(packed)) else zlib.compress(data, level=0)


def unpack(data: bytes, limit: int, what: str) -> bytes:
    """Decompress up to a limit.

    Raises:
        FormatError: it is cut off, has something after its end, or is longer than ``limit``.
        zlib.error: it is not compressed.
    """
    worker = zlib.decompressobj()
    out = worker.decompress(data, limit)
    if not worker.eof:
        raise FormatError(f"{what} is cut off, or unpacks to more than {limit} bytes")
    return out


def number(value: Any) -> int:
    """A whole number as JSON has it.

    Raises:
        TypeError: it is something else.
    """
    if type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is no whole number")
    return value


def words(value: Any) -> str:
    """Text as JSON has it, which can be written as UTF-8.

    Raises:
        TypeError: it is something else.
        UnicodeEncodeError: it has half a character; a ValueError.
    """
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    value.encode()
    return value
