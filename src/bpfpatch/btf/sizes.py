"""What a type comes down to, and how many bytes it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpfpatch.errors import FormatError

from .types import Array, Int
from .wire import MAX_DEPTH, MODIFIERS, Kind

if TYPE_CHECKING:
    from .btf import Btf

_SIZED = frozenset(
    {
        Kind.INT,
        Kind.STRUCT,
        Kind.UNION,
        Kind.ENUM,
        Kind.ENUM64,
        Kind.FLOAT,
        Kind.DATASEC,
    }
)
_SIZE_OF_TARGET = MODIFIERS | {Kind.VAR, Kind.DECL_TAG}
_MAX_SIZE = 0xFFFFFFFF
_LONG_NAMES = (
    "long",
    "long int",
    "int long",
    "unsigned long",
    "long unsigned",
    "unsigned long int",
    "long unsigned int",
)


def too_deep(btf: Btf, type_id: int) -> FormatError:
    """The error for a chain of types that is too long, or a ring."""
    return FormatError(
        f"type {type_id} goes through more than {MAX_DEPTH} others, or refers to itself",
        btf.byte_off_of(type_id),
    )


def resolve(btf: Btf, type_id: int) -> int:
    """The id that is left without typedef, const, volatile, restrict and type tags.

    Source of the limit: linux v6.1, kernel/bpf/btf.c, MAX_RESOLVE_DEPTH.
    """
    at = type_id
    for _ in range(MAX_DEPTH + 1):
        head = btf.head(at)
        if head.number not in MODIFIERS:
            return at
        at = head.size_or_type
    raise too_deep(btf, type_id)


def size_of(btf: Btf, type_id: int) -> int:
    """Bytes of a type.

    Source: linux v6.1, tools/lib/bpf/btf.c, btf__resolve_size(), with its
    limit of 32 bits.
    """
    count = 1
    at = type_id
    for _ in range(MAX_DEPTH + 1):
        head = btf.head(at)
        if head.number in _SIZED:
            return _times(btf, type_id, count, head.size_or_type)
        if head.number == Kind.PTR:
            return _times(btf, type_id, count, btf.ptr_size)
        if head.number == Kind.ARRAY:
            array = btf.type(at)
            assert isinstance(array, Array)
            count = _times(btf, type_id, count, array.count)
            at = array.type_id
        elif head.number in _SIZE_OF_TARGET:
            at = head.size_or_type
        else:
            raise FormatError(
                f"type {type_id} has no size: type {at} is {kind_name(head.number)}",
                btf.byte_off_of(at),
            )
    raise too_deep(btf, type_id)


def _times(btf: Btf, type_id: int, count: int, size: int) -> int:
    if count * size > _MAX_SIZE:
        raise FormatError(
            f"type {type_id} has {count} times {size} bytes, more than 4 GiB",
            btf.byte_off_of(type_id),
        )
    return count * size


def kind_name(number: int) -> str:
    """The kind's name, or its number where it is not known."""
    return Kind(number).name if number < len(Kind) else f"kind {number}"


def guess_ptr_size(btf: Btf) -> int:
    """The size of ``long``, if that is 4 or 8; otherwise 8.

    Source: linux v6.1, tools/lib/bpf/btf.c, determine_ptr_size().
    """
    for name in _LONG_NAMES:
        for type_id in btf.find(name, Kind.INT):
            found = btf.type(type_id)
            if isinstance(found, Int) and found.size in (4, 8):
                return found.size
    return 8
