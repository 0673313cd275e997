"""What a CO-RE record's path comes to, as a number.

Source: linux v6.1, tools/lib/bpf/relo_core.c, bpf_core_calc_field_relo(),
bpf_core_calc_type_relo(), bpf_core_calc_enumval_relo() and bpf_core_calc_relo().
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from bpfpatch.btf import Enum, Enum64, Int, IntEncoding, Ptr, Struct, Union
from bpfpatch.errors import UnsupportedError

from .corespec import CoreKind, Spec, Types


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A number, and what it was read from.

    Attributes:
        value: the number.
        size: bytes of a field that an instruction may load or store, or 0.
        type_id: that field's type.
        is_exact: whether the compiler must have come to the same number.
    """

    value: int
    size: int = 0
    type_id: int = 0
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class CoreResult:
    """What to do about one record.

    Attributes:
        old: what the instruction should hold.
        new: what it has to hold.
        is_exact: whether to insist on ``old``.
        is_poison: the instruction must not be reached: the kernel lacks what it needs.
        old_size: bytes that the instruction loads or stores, or 0.
        new_size: bytes that it has to.
        is_misread: loading ``new_size`` bytes would not give the same number.
        bit_off: of the kernel's field, to tell candidates apart.
    """

    old: int
    new: int
    is_exact: bool = True
    is_poison: bool = False
    old_size: int = 0
    new_size: int = 0
    is_misread: bool = False
    bit_off: int = 0


def relocate(
    kind: CoreKind, local: Types, mine: Spec, kernel: Types, theirs: Spec | None
) -> CoreResult:
    """What a record comes to, given the path in the program's types and the kernel's.

    Raises:
        UnsupportedError: the record asks something of a field that has no answer.
    """
    before = _value(kind, local, mine)
    assert before is not None
    after = _value(kind, kernel, theirs)
    if after is None:
        return CoreResult(before.value, 0, before.is_exact, is_poison=True)
    return CoreResult(
        before.value,
        after.value,
        before.is_exact,
        old_size=before.size,
        new_size=after.size,
        is_misread=before.size != after.size and not _may_resize(local, before, kernel, after),
        bit_off=0 if theirs is None else theirs.bit_off,
    )


def _may_resize(local: Types, before: FieldValue, kernel: Types, after: FieldValue) -> bool:
    """Whether loading another size gives the same number: of pointers and unsigned integers."""
    _, mine = local.stripped(before.type_id)
    _, theirs = kernel.stripped(after.type_id)
    if isinstance(mine, Ptr) and isinstance(theirs, Ptr):
        return True
    both = (mine, theirs)
    return all(isinstance(one, Int) and one.encoding != IntEncoding.SIGNED for one in both)


def _value(kind: CoreKind, types: Types, spec: Spec | None) -> FieldValue | None:
    """The number, or None where an instruction cannot do without what is absent."""
    if kind in (CoreKind.FIELD_EXISTS, CoreKind.ENUMVAL_EXISTS):
        return FieldValue(int(spec is not None))
    if spec is None:
        return None if kind.is_field or kind.is_enum else FieldValue(0)
    if kind.is_field:
        return _field(kind, types, spec)
    if kind is CoreKind.ENUMVAL_VALUE:
        return FieldValue(_constant(types, spec))
    return _whole(kind, types, spec)


def _whole(kind: CoreKind, types: Types, spec: Spec) -> FieldValue:
    if kind is CoreKind.TYPE_ID_TARGET:
        return FieldValue(spec.root, is_exact=False)
    if kind is CoreKind.TYPE_SIZE:
        return FieldValue(types.btf.size_of(spec.root))
    return FieldValue(1)


def _constant(types: Types, spec: Spec) -> int:
    step = spec.steps[0]
    _, record = types.stripped(step.type_id)
    assert isinstance(record, (Enum, Enum64))
    return record.values[step.index].value


def _field(kind: CoreKind, types: Types, spec: Spec) -> FieldValue:
    step = spec.steps[-1]
    if not step.name:
        return _element(kind, types, spec)
    _, struct = types.stripped(step.type_id)
    assert isinstance(struct, (Struct, Union))
    member = struct.members[step.index]
    field_id, record = types.stripped(member.type_id)
    size, byte_off = types.btf.size_of(field_id), spec.bit_off // 8
    # Of a bitfield the compiler may choose another load than we do.
    bits, is_exact = member.bitfield_size or 8 * size, not member.bitfield_size
    if member.bitfield_size:
        size, byte_off = _bitfield(size, spec.bit_off, bits)
    start = spec.bit_off - 8 * byte_off
    left = 64 - (start + bits) if sys.byteorder == "little" else 8 * (8 - size) + start
    if kind is CoreKind.FIELD_BYTE_OFFSET:
        return FieldValue(byte_off, size if is_exact else 0, field_id, is_exact)
    found = {
        CoreKind.FIELD_BYTE_SIZE: FieldValue(size, is_exact=is_exact),
        CoreKind.FIELD_SIGNED: FieldValue(int(_is_signed(record))),
        CoreKind.FIELD_LSHIFT_U64: FieldValue(left, is_exact=is_exact),
        CoreKind.FIELD_RSHIFT_U64: FieldValue(64 - bits),
    }
    return found[kind]


def _element(kind: CoreKind, types: Types, spec: Spec) -> FieldValue:
    element = spec.steps[-1].type_id
    size = types.btf.size_of(element)
    if kind is CoreKind.FIELD_BYTE_OFFSET:
        return FieldValue(spec.bit_off // 8, size, element)
    if kind is CoreKind.FIELD_BYTE_SIZE:
        return FieldValue(size)
    raise UnsupportedError(f"CO-RE cannot answer {kind.name.lower()} of an array's element")


def _bitfield(size: int, bit_off: int, bits: int) -> tuple[int, int]:
    """(bytes, byte_off) of the smallest aligned load that has all of a bitfield."""
    while True:
        byte_off = bit_off // 8 // size * size
        if bit_off + bits - 8 * byte_off <= 8 * size:
            return size, byte_off
        if size >= 8:
            raise UnsupportedError(
                f"a bitfield of {bits} bits at bit {bit_off} cannot be read with one 64-bit load"
            )
        size *= 2


def _is_signed(record: object) -> bool:
    if isinstance(record, (Enum, Enum64)):
        return record.is_signed
    return isinstance(record, Int) and bool(record.encoding & IntEncoding.SIGNED)
