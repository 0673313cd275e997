"""A type record's words as a dataclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bpfpatch.errors import FormatError

from . import types as t
from .wire import HEAD_WORDS, Kind, info_flag, info_kind, info_vlen


@dataclass(frozen=True, slots=True)
class Record:
    """One record, with what is needed to make sense of it.

    Attributes:
        words: the whole record; its length is what its kind and vlen call for.
        byte_off: its place in the input, for errors.
        text: a string offset's text.
        id_limit: the first type id that does not exist.
    """

    words: list[int]
    byte_off: int
    text: Callable[[int, int], str]
    id_limit: int

    @property
    def name(self) -> str:
        """The name in the head."""
        return self.text(self.words[0], self.byte_off)

    @property
    def has_flag(self) -> bool:
        """The head's kind_flag."""
        return info_flag(self.words[1])

    @property
    def vlen(self) -> int:
        """The head's vlen."""
        return info_vlen(self.words[1])

    @property
    def size(self) -> int:
        """The head's last word as a size."""
        return self.words[2]

    @property
    def type_id(self) -> int:
        """The head's last word as a type id."""
        return self.ref(self.words[2])

    def ref(self, type_id: int) -> int:
        """``type_id``, if there is such a type."""
        if type_id < self.id_limit:
            return type_id
        raise FormatError(
            f"a type record names type id {type_id}, the last one is {self.id_limit - 1}",
            self.byte_off,
        )

    def columns(self, count: int) -> list[list[int]]:
        """The items' words, one list for each of an item's ``count`` fields."""
        return [self.words[HEAD_WORDS + at :: count] for at in range(count)]


def decode(record: Record) -> t.BtfType:
    """The record's dataclass.

    Raises:
        FormatError: a string or type id is out of range.
    """
    number = info_kind(record.words[1])
    make = _DECODERS.get(number)
    if make is None:
        return t.Unknown(record.name, number, tuple(record.words))
    return make(record)


def _int(record: Record) -> t.Int:
    bits = record.words[3]
    return t.Int(
        record.name, record.size, bits & 0xFF, t.IntEncoding(bits >> 24 & 0xF), bits >> 16 & 0xFF
    )


def _array(record: Record) -> t.Array:
    element, index, count = record.words[3:6]
    return t.Array(record.ref(element), record.ref(index), count)


def _members(record: Record) -> tuple[t.Member, ...]:
    rows = zip(*record.columns(3), strict=True)
    text, ref, byte_off = record.text, record.ref, record.byte_off
    if not record.has_flag:
        return tuple(t.Member(text(name, byte_off), ref(tid), at) for name, tid, at in rows)
    return tuple(
        t.Member(text(name, byte_off), ref(tid), at & 0xFFFFFF, at >> 24) for name, tid, at in rows
    )


def _struct(record: Record) -> t.Struct:
    return t.Struct(record.name, record.size, _members(record), record.has_flag)


def _union(record: Record) -> t.Union:
    return t.Union(record.name, record.size, _members(record), record.has_flag)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _enum(record: Record) -> t.Enum:
    is_signed = record.has_flag
    values = tuple(
        t.Enumerator(record.text(name, record.byte_off), _signed(val, 32) if is_signed else val)
        for name, val in zip(*record.columns(2), strict=True)
    )
    return t.Enum(record.name, record.size, values, is_signed)


def _enum64(record: Record) -> t.Enum64:
    is_signed = record.has_flag
    values = tuple(
        t.Enumerator(
            record.text(name, record.byte_off),
            _signed(high << 32 | low, 64) if is_signed else high << 32 | low,
        )
        for name, low, high in zip(*record.columns(3), strict=True)
    )
    return t.Enum64(record.name, record.size, values, is_signed)


def _func_proto(record: Record) -> t.FuncProto:
    params = tuple(
        t.Param(record.text(name, record.byte_off), record.ref(type_id))
        for name, type_id in zip(*record.columns(2), strict=True)
    )
    return t.FuncProto(record.type_id, params)


def _datasec(record: Record) -> t.DataSec:
    variables = tuple(
        t.SecVar(record.ref(type_id), byte_off, size)
        for type_id, byte_off, size in zip(*record.columns(3), strict=True)
    )
    return t.DataSec(record.name, record.size, variables)


_DECODERS: dict[int, Callable[[Record], t.BtfType]] = {
    Kind.INT: _int,
    Kind.PTR: lambda record: t.Ptr(record.type_id),
    Kind.ARRAY: _array,
    Kind.STRUCT: _struct,
    Kind.UNION: _union,
    Kind.ENUM: _enum,
    Kind.FWD: lambda record: t.Fwd(record.name, record.has_flag),
    Kind.TYPEDEF: lambda record: t.Typedef(record.name, record.type_id),
    Kind.VOLATILE: lambda record: t.Volatile(record.type_id),
    Kind.CONST: lambda record: t.Const(record.type_id),
    Kind.RESTRICT: lambda record: t.Restrict(record.type_id),
    Kind.FUNC: lambda record: t.Func(record.name, record.type_id, record.vlen),
    Kind.FUNC_PROTO: _func_proto,
    Kind.VAR: lambda record: t.Var(record.name, record.type_id, record.words[3]),
    Kind.DATASEC: _datasec,
    Kind.FLOAT: lambda record: t.Float(record.name, record.size),
    Kind.DECL_TAG: lambda record: t.DeclTag(
        record.name, record.type_id, _signed(record.words[3], 32), record.has_flag
    ),
    Kind.TYPE_TAG: lambda record: t.TypeTag(record.name, record.type_id, record.has_flag),
    Kind.ENUM64: _enum64,
}
