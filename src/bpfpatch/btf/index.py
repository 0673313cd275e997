"""Find where each type record starts.

Records have no length field: the start of one follows from the one before
it, so this is the one loop over all records.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import FormatError

from .header import BtfHeader
from .wire import BODY_WORDS, HEAD_WORDS, info_kind

#: A record of a kind without a known size "ends" here, which ends the walk.
_BEYOND = 1 << 62


@dataclass(frozen=True, slots=True)
class TypeIndex:
    """Where the records are.

    Attributes:
        starts: (n + 1,) word positions in the type section; the last is where
            the walk ended. Read-only.
        unknown_kind: the kind whose record could not be stepped over, or None
            where all records were walked.
    """

    starts: NDArray[np.uint32]
    unknown_kind: int | None


def index_types(data: bytes, header: BtfHeader, base_layout: bytes) -> TypeIndex:
    """Walk the type section.

    Args:
        data: the whole .BTF section.
        header: its checked header.
        base_layout: the base BTF's layout section, used where this one has none.

    Raises:
        FormatError: a record does not fit the section, or has kind 0.
    """
    section = header.types
    words = array("I", data[section.byte_off : section.byte_off + (section.length & ~3)])
    if sys.byteorder != header.byteorder:
        words.byteswap()
    layout = data[header.layout.byte_off : header.layout.end] or base_layout
    starts, end = _walk(words, *_size_tables(layout))
    unknown = None
    if end > len(words) or section.length % 4:
        unknown = _explain_end(words, starts, end, header)
    if unknown is not None:
        end = starts.pop()
    starts.append(end)
    out = np.frombuffer(starts, dtype=np.uint32)
    out.flags.writeable = False
    return TypeIndex(out, unknown)


def _size_tables(layout: bytes) -> tuple[list[int], list[int]]:
    """Words of a record, by kind: (fixed part with the head, each item).

    Known kinds are what the format says, whatever the layout claims.

    Source: linux v7.1, tools/lib/bpf/btf.c, btf_type_size_unknown().
    """
    fixed = [_BEYOND] * 128
    item = [0] * 128
    for kind in range(min(len(layout) // 4, 128)):
        once, each = layout[4 * kind], layout[4 * kind + 1]
        if kind and once % 4 == 0 and each % 4 == 0:
            fixed[kind], item[kind] = HEAD_WORDS + once // 4, each // 4
    for known, (once, each) in BODY_WORDS.items():
        fixed[known], item[known] = HEAD_WORDS + once, each
    return fixed, item


def _walk(words: array[int], fixed: list[int], item: list[int]) -> tuple[array[int], int]:
    """All starts, and the position after the last record, which may be too far."""
    starts = array("I")
    add = starts.append
    end = len(words)
    at = 0
    # Two words of slack, so that reading the info word needs no check.
    words.extend((0, 0))
    while at < end:
        add(at)
        info = words[at + 1]
        kind = info >> 24 & 0x7F
        at += fixed[kind] + (info & 0xFFFFFF) * item[kind]
    del words[end:]
    return starts, at


def _explain_end(words: array[int], starts: array[int], end: int, header: BtfHeader) -> int | None:
    """The unknown kind that stopped the walk; anything else is an error."""
    section = header.types
    if not starts or end <= len(words):
        raise FormatError(f"the type section has {section.length} bytes, no multiple of 4", 12)
    last = starts[-1]
    byte_off = section.byte_off + 4 * last
    left = len(words) - last
    if left < HEAD_WORDS:
        raise FormatError(
            f"type record {len(starts)} has {4 * left} bytes left, its head needs 12", byte_off
        )
    if end < _BEYOND:
        raise FormatError(
            f"type record {len(starts)} needs {4 * (end - last)} bytes, "
            f"{4 * left} are left in the type section",
            byte_off,
        )
    kind = info_kind(words[last + 1])
    if kind == 0:
        raise FormatError(f"type record {len(starts)} has kind 0, which has no record", byte_off)
    return kind
