"""Values of variables: from bytes to Python by their type, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bpfpatch.errors import OptionError

from .literals import HEX, hex_bytes, read_literal
from .types import Array, BtfType, Enum, Enum64, Int, IntEncoding, Struct, Union
from .wire import ByteOrder

if TYPE_CHECKING:
    from .btf import Btf
    from .members import BtfPlace

_TRUTHS: Final = {"true": 1, "yes": 1, "on": 1, "false": 0, "no": 0, "off": 0}
_MAX_ELEMENTS: Final = 1 << 20
_WIDEST: Final = 8
"""Bytes of the widest number that has no type."""


def read_value(btf: Btf, type_id: int, data: bytes, order: ByteOrder) -> Any:
    """What bytes say, read as a type.

    Args:
        btf: the types.
        type_id: the value's type.
        data: its bytes; more of them are left alone.
        order: their byte order.

    Returns:
        An int, a bool, an enumerator's name, text (of ``char`` arrays), a list, a dict by
        member, or, of what has no such form (pointers, floats), the bytes in hex.
    """
    kind = btf.type(btf.resolve(type_id))
    if isinstance(kind, (Struct, Union)):
        return {
            member.name or f"[{index}]": _read_member(btf, member.type_id, data, order, place)
            for index, member in enumerate(kind.members)
            for place in [(member.bit_off, member.bitfield_size)]
        }
    if isinstance(kind, Array):
        size = btf.size_of(kind.type_id)
        count = min(kind.count, _MAX_ELEMENTS)
        if _is_char(btf, kind.type_id):
            text = data[:count].rstrip(b"\0")
            if text.isascii() and all(byte >= 0x20 for byte in text):
                return text.decode("ascii")
        cells = [data[at * size : (at + 1) * size] for at in range(count)]
        return [read_value(btf, kind.type_id, cell, order) for cell in cells]
    size = btf.size_of(type_id)
    if isinstance(kind, (Int, Enum, Enum64)):
        return _named(kind, int.from_bytes(data[:size], order), 8 * size)
    return data[:size].hex()


def write_value(
    btf: Btf, place: BtfPlace, data: bytearray, value: Any, order: ByteOrder, name: str
) -> None:
    """Write a value into bytes, in place.

    Args:
        btf: the types.
        place: where in ``data``, and as which type.
        data: the variable's bytes.
        value: a number, bool, enumerator's name or text; a list for an array, of which the
            rest becomes zeros, as in C; a dict by member for a struct, whose other members stay.
            Text also stands for a number, and for a list or dict: see `read_literal`.
        order: byte order of ``data``.
        name: what errors call it.

    Raises:
        OptionError: the value does not fit the type, or the type has no form for values.
    """
    kind = btf.type(btf.resolve(place.type_id))
    if isinstance(kind, (Struct, Union)):
        parts = read_literal(value) if isinstance(value, str) else value
        if not isinstance(parts, Mapping):
            raise OptionError(
                f"{name} is {btf.type_name(place.type_id)}: set its members, such as "
                f"{name}.{_first_member(kind)}, or give an object of them"
            )
        for member, part in parts.items():
            inner = _within(btf, place, str(member))
            write_value(btf, inner, data, part, order, f"{name}.{member}")
    elif isinstance(kind, Array):
        _write_array(btf, place, kind, data, value, order, name)
    elif isinstance(kind, (Int, Enum, Enum64)):
        size = btf.size_of(place.type_id)
        bits = place.bitfield_size or (kind.bits if isinstance(kind, Int) else 8 * size)
        number = _number(kind, value, bits, name)
        _put_bits(data, place.bit_off, bits, number, order)
    else:
        raise OptionError(
            f"{name} is {btf.type_name(place.type_id)}, which no value can be given for: only "
            "integers, enums, bools, text, and arrays and structs of them"
        )


def value_bytes(
    btf: Btf | None, type_id: int, size: int, value: Any, order: ByteOrder, name: str
) -> bytes:
    """A whole value as bytes, such as a map's key.

    Args:
        btf: the types.
        type_id: the value's; 0 where it has none, and then it is a number or bytes.
        size: how many bytes it has.
        value: as for `write_value`, what is left out zeros; or bytes, also as text with ``hex:``.
        order: byte order.
        name: what errors call it.

    Raises:
        OptionError: the value does not fit the type or the size.
    """
    if isinstance(value, str) and value.strip().startswith(HEX):
        value = hex_bytes(value, name)
    if isinstance(value, (bytes, bytearray)):
        if len(value) != size:
            raise OptionError(f"{name} has {size} bytes, but {len(value)} were given")
        return bytes(value)
    if btf is None or not type_id:
        return _untyped(size, value, order, name)
    from .members import BtfPlace  # noqa: PLC0415 - it imports the types

    # What the type says and what the map says may differ; the map's size counts.
    data = bytearray(max(size, btf.size_of(type_id)))
    write_value(btf, BtfPlace(type_id, 0), data, value, order, name)
    if any(data[size:]):
        raise OptionError(f"{name} has {size} bytes, fewer than its type: what is given is lost")
    return bytes(data[:size])


def _untyped(size: int, value: Any, order: ByteOrder, name: str) -> bytes:
    number = value
    if isinstance(value, str):
        try:
            number = int(value.strip(), 0)
        except ValueError:
            number = None
    if not isinstance(number, int) or size > _WIDEST:
        what = f"a number or {HEX} and" if size <= _WIDEST else HEX
        raise OptionError(
            f"{name} has {size} bytes and no type in BTF: give {what} {size} bytes in hex, "
            f"not {value!r}"
        )
    if not -(1 << 8 * size - 1) <= number < 1 << 8 * size:
        raise OptionError(f"{name} has {size} bytes, too few for {number}")
    return (number & (1 << 8 * size) - 1).to_bytes(size, order)


def _write_array(
    btf: Btf,
    place: BtfPlace,
    kind: Array,
    data: bytearray,
    value: Any,
    order: ByteOrder,
    name: str,
) -> None:
    size = btf.size_of(kind.type_id)
    start = place.byte_off
    if _is_char(btf, kind.type_id) and isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")
        if len(text) >= kind.count:
            raise OptionError(
                f"{name} has room for {max(kind.count - 1, 0)} bytes and a NUL, and {value!r} has "
                f"{len(text)}"
            )
        data[start : start + kind.count] = text.ljust(kind.count, b"\0")
        return
    items = read_literal(value) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        raise OptionError(
            f"{name} is an array of {kind.count}: give a list, or set an element, such as {name}[0]"
        )
    if len(items) > kind.count:
        raise OptionError(f"{name} has {kind.count} elements, but {len(items)} were given")
    data[start : start + kind.count * size] = bytes(kind.count * size)
    for index, item in enumerate(items):
        inner = _within(btf, place, f"[{index}]")
        write_value(btf, inner, data, item, order, f"{name}[{index}]")


def _within(btf: Btf, place: BtfPlace, path: str) -> BtfPlace:
    from .members import BtfPlace  # noqa: PLC0415 - it imports the types

    found = btf.member_path(place.type_id, path)
    return BtfPlace(found.type_id, place.bit_off + found.bit_off, found.bitfield_size, found.path)


def _first_member(kind: Struct | Union) -> str:
    return next((member.name for member in kind.members if member.name), "MEMBER")


def _number(kind: Int | Enum | Enum64, value: Any, bits: int, name: str) -> int:
    """The value as a number that the type can hold.

    Raises:
        OptionError: it is none, or too large.
    """
    number = _parse(kind, value)
    is_bool = isinstance(kind, Int) and bool(kind.encoding & IntEncoding.BOOL)
    is_signed = kind.encoding & IntEncoding.SIGNED if isinstance(kind, Int) else kind.is_signed
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    if is_bool:
        least, most = 0, 1
    if number is None:
        hint = f"a number from {least} to {most}"
        if is_bool:
            hint = "true or false"
        elif not isinstance(kind, Int):
            names = ", ".join(one.name for one in kind.values[:12])
            hint = f"{names}{', ...' if len(kind.values) > 12 else ''}, or a number"
        raise OptionError(
            f"{name} is {kind.name or 'an enum'}: {value!r} is not one of its values; give {hint}"
        )
    if not least <= number <= most:
        raise OptionError(f"{name} holds {least} to {most}, not {number}")
    return number


def _parse(kind: Int | Enum | Enum64, value: Any) -> int | None:
    if isinstance(value, (bool, int)):
        return int(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if not isinstance(kind, Int):
        for one in kind.values:
            if one.name == text:
                return one.value
    elif kind.encoding & IntEncoding.BOOL and text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    try:
        return int(text, 0)
    except ValueError:
        return None


def _named(kind: Int | Enum | Enum64, number: int, bits: int) -> Any:
    if isinstance(kind, Int):
        if kind.encoding & IntEncoding.BOOL and number < 2:
            return bool(number)
        is_signed = bool(kind.encoding & IntEncoding.SIGNED)
    else:
        is_signed = kind.is_signed
    if is_signed and number >> bits - 1:
        number -= 1 << bits
    if isinstance(kind, (Enum, Enum64)):
        for one in kind.values:
            if one.value == number:
                return one.name
    return number


def _is_char(btf: Btf, type_id: int) -> bool:
    kind: BtfType = btf.type(btf.resolve(type_id))
    is_byte = isinstance(kind, Int) and kind.size == 1 and not kind.encoding & IntEncoding.BOOL
    return is_byte and kind.name in ("char", "signed char")


def _read_member(
    btf: Btf, type_id: int, data: bytes, order: ByteOrder, place: tuple[int, int]
) -> Any:
    bit_off, bitfield = place
    kind = btf.type(btf.resolve(type_id))
    if not bitfield or not isinstance(kind, (Int, Enum, Enum64)):
        return read_value(btf, type_id, data[bit_off // 8 :], order)
    number = int.from_bytes(data, order) >> _shift(len(data), bit_off, bitfield, order)
    return _named(kind, number & ((1 << bitfield) - 1), bitfield)


def _put_bits(data: bytearray, bit_off: int, bits: int, number: int, order: ByteOrder) -> None:
    """Bits count from the least significant end in a little-endian object, else from the other."""
    first, last = bit_off // 8, (bit_off + bits + 7) // 8
    window = data[first:last]
    shift = _shift(len(window), bit_off - 8 * first, bits, order)
    mask = ((1 << bits) - 1) << shift
    old = int.from_bytes(window, order)
    data[first:last] = (old & ~mask | number << shift & mask).to_bytes(len(window), order)


def _shift(n_bytes: int, bit_off: int, bits: int, order: ByteOrder) -> int:
    return bit_off if order == "little" else 8 * n_bytes - bit_off - bits
