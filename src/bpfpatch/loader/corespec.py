"""What a CO-RE record is about: a path into a type, in the program's types and the kernel's.

Source: linux v6.1, tools/lib/bpf/relo_core.c, bpf_core_parse_spec(),
bpf_core_match_member() and bpf_core_spec_match(); include/uapi/linux/bpf.h,
enum bpf_core_relo_kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bpfpatch.btf import Array, Btf, BtfType, Enum, Enum64, Member, Struct, Union
from bpfpatch.errors import FormatError

from .corematch import are_compatible, essential_name, fields_compatible, types_match

_ACCESS: Final = re.compile(r"\d{1,10}(:\d{1,10}){0,63}", re.ASCII)
_MAX_NESTING: Final = 64


class CoreKind(IntEnum):
    """What a record asks for."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12

    @property
    def is_field(self) -> bool:
        """Whether it is about a field."""
        return self <= CoreKind.FIELD_RSHIFT_U64

    @property
    def is_enum(self) -> bool:
        """Whether it is about an enum's constant."""
        return self in (CoreKind.ENUMVAL_EXISTS, CoreKind.ENUMVAL_VALUE)


class Types:
    """A BTF section whose records are kept once they were read."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self._known: dict[int, BtfType] = {}

    def stripped(self, type_id: int) -> tuple[int, BtfType]:
        """(id, record) without modifiers and typedefs."""
        found = self.btf.resolve(type_id)
        if found not in self._known:
            self._known[found] = self.btf.type(found)
        return found, self._known[found]


@dataclass(frozen=True, slots=True)
class Accessor:
    """One step of a path that has a meaning: a named member, an element, an enum's constant.

    Attributes:
        type_id: the struct that has the member; of an element its own type.
        index: of the member, element or constant.
        name: "" of an element.
    """

    type_id: int
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """A path into a type.

    Attributes:
        root: the type that it starts from.
        steps: the way, anonymous members left out; empty where the type itself is meant.
        bit_off: bits from the start of the root.
    """

    root: int
    steps: tuple[Accessor, ...] = ()
    bit_off: int = 0


def parse_spec(types: Types, type_id: int, access: str, kind: CoreKind) -> Spec:
    """The path that a record's access string takes through the program's own types.

    Raises:
        FormatError: it does not fit the types.
    """
    if not _ACCESS.fullmatch(access):
        raise FormatError(f"CO-RE access string {access[:80]!r} is not 1 to 64 numbers with colons")
    first, *rest = (int(number) for number in access.split(":"))
    root, record = types.stripped(type_id)
    if not kind.is_field and not kind.is_enum:
        return Spec(type_id)
    if kind.is_enum:
        if not isinstance(record, (Enum, Enum64)) or rest or first >= len(record.values):
            raise FormatError(f"CO-RE access {access!r} names no constant of type {type_id}")
        return Spec(type_id, (Accessor(root, first, record.values[first].name),))
    bit_off = 8 * first * types.btf.size_of(root) if first else 0
    steps = [Accessor(root, first)]
    at = root
    for index in rest:
        at, bits = _step(types, at, index, steps)
        bit_off += bits
    return Spec(type_id, tuple(steps), bit_off)


def _step(types: Types, type_id: int, index: int, steps: list[Accessor]) -> tuple[int, int]:
    """(type, bits further) of a member or element; adds it to ``steps`` unless it is anonymous."""
    at, record = types.stripped(type_id)
    if isinstance(record, (Struct, Union)):
        if index >= len(record.members):
            raise FormatError(
                f"CO-RE access wants member {index} of type {at}, which has {len(record.members)}"
            )
        member = record.members[index]
        if member.name:
            steps.append(Accessor(at, index, member.name))
        return member.type_id, member.bit_off
    if not isinstance(record, Array):
        raise FormatError(
            f"CO-RE access goes into type {at}, which is not a struct, union or array"
        )
    if index >= record.count and not _is_flexible(types, steps[-1], record):
        raise FormatError(f"CO-RE access wants element {index} of {record.count}")
    element, _ = types.stripped(record.type_id)
    steps.append(Accessor(element, index))
    return element, 8 * index * types.btf.size_of(element)


def _is_flexible(types: Types, owner: Accessor, array: Array) -> bool:
    """Whether an array without elements is the last member of its struct."""
    if not owner.name or array.count:
        return False
    _, struct = types.stripped(owner.type_id)
    return isinstance(struct, (Struct, Union)) and owner.index == len(struct.members) - 1


def match_spec(
    local: Types, spec: Spec, kernel: Types, candidate: int, kind: CoreKind
) -> Spec | None:
    """The same path in one of the kernel's types, or None where there is no such way.

    Raises:
        UnsupportedError: types are nested too deeply.
    """
    if kind is CoreKind.TYPE_MATCHES:
        fits = types_match(local.btf, spec.root, kernel.btf, candidate)
        return Spec(candidate) if fits else None
    if kind.is_field:
        return _match_fields(local, spec, kernel, candidate)
    if kind.is_enum:
        return _match_constant(spec, kernel, candidate)
    fits = are_compatible(local.btf, spec.root, kernel.btf, candidate)
    return Spec(candidate) if fits else None


def _match_constant(spec: Spec, kernel: Types, candidate: int) -> Spec | None:
    at, record = kernel.stripped(candidate)
    if not isinstance(record, (Enum, Enum64)):
        return None
    wanted = essential_name(spec.steps[0].name)
    for index, value in enumerate(record.values):
        if essential_name(value.name) == wanted:
            return Spec(candidate, (Accessor(at, index, value.name),))
    return None


def _match_fields(local: Types, spec: Spec, kernel: Types, candidate: int) -> Spec | None:
    at, bit_off = candidate, 0
    steps: list[Accessor] = []
    for number, step in enumerate(spec.steps):
        if step.name:
            found = _find_member(kernel, at, step.name, _MAX_NESTING)
            if found is None:
                return None
            owner, index, member, bits = found
            mine = _member(local, step)
            if not fields_compatible(local.btf, mine.type_id, kernel.btf, member.type_id):
                return None
            steps.append(Accessor(owner, index, step.name))
            at, bit_off = member.type_id, bit_off + bits
            continue
        at, record = kernel.stripped(at)
        if number:
            if not isinstance(record, Array):
                return None
            if step.index >= record.count and not _is_flexible(kernel, steps[-1], record):
                return None
            at, _ = kernel.stripped(record.type_id)
        if step.index:
            bit_off += 8 * step.index * kernel.btf.size_of(at)
        steps.append(Accessor(at, step.index))
    return Spec(candidate, tuple(steps), bit_off)


def _member(types: Types, step: Accessor) -> Member:
    _, record = types.stripped(step.type_id)
    assert isinstance(record, (Struct, Union))
    return record.members[step.index]


def _find_member(
    kernel: Types, type_id: int, name: str, depth: int
) -> tuple[int, int, Member, int] | None:
    """(struct, index, member, bits from the start) of a name, through anonymous members."""
    at, record = kernel.stripped(type_id)
    if not isinstance(record, (Struct, Union)) or not depth:
        return None
    for index, member in enumerate(record.members):
        if member.name == name:
            return at, index, member, member.bit_off
        if member.name:
            continue
        found = _find_member(kernel, member.type_id, name, depth - 1)
        if found is not None:
            return (*found[:3], member.bit_off + found[3])
    return None
