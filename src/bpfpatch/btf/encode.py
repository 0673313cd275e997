"""A dataclass as a type record's words: the inverse of decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bpfpatch.errors import OptionError

from . import types as t
from .wire import MAX_VLEN, Kind

Intern = Callable[[str], int]

_REFERENCES = (t.Ptr, t.Typedef, t.Volatile, t.Const, t.Restrict, t.Func, t.Var)


def encode(found: t.BtfType, intern: Intern) -> list[int]:
    """The record's words.

    Args:
        found: what to write; Void and Unknown have no record that could be made.
        intern: gives a string's offset, and adds the string where it is missing.

    Raises:
        OptionError: a number does not fit its field.
    """
    if isinstance(found, (t.Void, t.Unknown)):
        raise OptionError(f"a type of class {type(found).__name__} cannot be written")
    name_off = intern(found.name)
    body, vlen, flag, last = _body(found, intern)
    if vlen > MAX_VLEN:
        raise OptionError(f"{found.kind.name} {found.name!r} has {vlen} items, {MAX_VLEN} fit")
    info = int(flag) << 31 | int(found.kind) << 24 | vlen
    return [name_off, info, _unsigned(last, 32, found), *body]


def _unsigned(value: int, bits: int, found: t.BtfType) -> int:
    if 0 <= value < 1 << bits:
        return value
    raise OptionError(
        f"{type(found).__name__} {found.name!r} holds {value}, its field has {bits} bits, unsigned"
    )


def _wrapped(value: int, bits: int, found: t.BtfType, *, is_signed: bool) -> int:
    low = -(1 << (bits - 1)) if is_signed else 0
    if low <= value < low + (1 << bits):
        return value & ((1 << bits) - 1)
    sign = "signed" if is_signed else "unsigned"
    raise OptionError(
        f"{type(found).__name__} {found.name!r} holds {value}, its field has {bits} bits, {sign}"
    )


def _body(found: t.BtfType, intern: Intern) -> tuple[list[int], int, bool, int]:
    """(words after the head, vlen, kind_flag, the head's last word)."""
    if isinstance(found, (t.Struct, t.Union)):
        flag = found.kind_flag or any(member.bitfield_size for member in found.members)
        words = _flat(_member(member, found, intern, flag=flag) for member in found.members)
        return words, len(found.members), flag, found.size
    if isinstance(found, (t.Enum, t.Enum64)):
        words = _flat(_enumerator(value, found, intern) for value in found.values)
        return words, len(found.values), found.is_signed, found.size
    if isinstance(found, t.FuncProto):
        words = _flat((intern(p.name), _unsigned(p.type_id, 32, found)) for p in found.params)
        return words, len(found.params), False, found.type_id
    if isinstance(found, t.DataSec):
        rows = ((v.type_id, v.byte_off, v.size) for v in found.variables)
        words = [_unsigned(value, 32, found) for row in rows for value in row]
        return words, len(found.variables), False, found.size
    return _plain(found)


def _plain(found: t.BtfType) -> tuple[list[int], int, bool, int]:
    """The same for kinds without items."""
    words: list[int] = []
    vlen = last = 0
    flag = False
    if isinstance(found, t.Int):
        encoding = _unsigned(int(found.encoding), 4, found) << 24
        at = _unsigned(found.bit_off, 8, found) << 16
        words = [encoding | at | _unsigned(found.bits, 8, found)]
        last = found.size
    elif isinstance(found, t.Array):
        values = (found.type_id, found.index_type_id, found.count)
        words = [_unsigned(value, 32, found) for value in values]
    elif isinstance(found, t.Fwd):
        flag = found.is_union
    elif isinstance(found, t.Float):
        last = found.size
    elif isinstance(found, (t.DeclTag, t.TypeTag)):
        flag, last = found.is_attribute, found.type_id
        if isinstance(found, t.DeclTag):
            words = [_wrapped(found.component, 32, found, is_signed=True)]
    else:
        assert isinstance(found, _REFERENCES)
        last = found.type_id
        if isinstance(found, t.Func):
            vlen = _unsigned(found.linkage, 16, found)
        elif isinstance(found, t.Var):
            words = [_unsigned(found.linkage, 32, found)]
    return words, vlen, flag, last


def _flat(rows: Iterable[tuple[int, ...]]) -> list[int]:
    return [word for row in rows for word in row]


def _member(
    member: t.Member, found: t.Struct | t.Union, intern: Intern, *, flag: bool
) -> tuple[int, int, int]:
    if flag:
        size = _unsigned(member.bitfield_size, 8, found)
        place = size << 24 | _unsigned(member.bit_off, 24, found)
    else:
        place = _unsigned(member.bit_off, 32, found)
    return intern(member.name), _unsigned(member.type_id, 32, found), place


def _enumerator(value: t.Enumerator, found: t.Enum | t.Enum64, intern: Intern) -> tuple[int, ...]:
    bits = 32 if found.kind is Kind.ENUM else 64
    word = _wrapped(value.value, bits, found, is_signed=found.is_signed)
    if bits == 32:
        return intern(value.name), word
    return intern(value.name), word & 0xFFFFFFFF, word >> 32
