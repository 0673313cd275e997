"""Find members: by a path as in C, or by the indices of a CO-RE record."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bpfpatch.errors import FormatError, OptionError

from .sizes import kind_name
from .types import Array, Member, Struct, Union
from .wire import Kind

if TYPE_CHECKING:
    from .btf import Btf

_STEP = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d{1,10})\]")
_ACCESS = re.compile(r"\d{1,10}(:\d{1,10}){0,63}", re.ASCII)
_MOST_NAMES = 20
_ROOTS = {"struct": Kind.STRUCT, "union": Kind.UNION, "typedef": Kind.TYPEDEF}


@dataclass(frozen=True, slots=True)
class BtfPlace:
    """Where a member is.

    Attributes:
        type_id: its type, as the member names it.
        bit_off: bits from the start of the root.
        bitfield_size: bits, or 0 where it is not a bitfield.
        path: how C would write the way from the root; names of anonymous members are left out.
    """

    type_id: int
    bit_off: int
    bitfield_size: int = 0
    path: str = ""

    @property
    def byte_off(self) -> int:
        """Bytes from the start of the root.

        Raises:
            OptionError: it starts within a byte.
        """
        if self.bit_off % 8:
            raise OptionError(
                f"member {self.path!r} is a bitfield at bit {self.bit_off}, within a byte; "
                "use bit_off"
            )
        return self.bit_off // 8


def member_path(btf: Btf, root: int | str, path: str) -> BtfPlace:
    """Walk a path as C writes it, through anonymous structs and unions.

    Args:
        btf: the types.
        root: a type id, or a name such as ``struct sk_buff``, ``union u`` or ``a_typedef``.
        path: such as ``len``, ``a.b``, ``cb[3]`` or ``a.b[2].c``.

    Raises:
        OptionError: no such type or member.
        FormatError: the types themselves are broken.
    """
    at = BtfPlace(root if isinstance(root, int) else _root(btf, root), 0)
    pos = 0
    while pos < len(path):
        step = _STEP.match(path, pos)
        if step is None:
            raise OptionError(f"member path {path!r} cannot be read from character {pos}")
        pos = step.end()
        at = _enter(btf, at, step[1]) if step[1] else _element(btf, at, int(step[2]))
    return at


def _root(btf: Btf, root: str) -> int:
    prefix, _, name = root.rpartition(" ")
    if prefix and prefix not in _ROOTS:
        raise OptionError(f"{root!r} names no type: write struct, union or typedef before the name")
    kinds = [_ROOTS[prefix]] if prefix else list(_ROOTS.values())
    found = [type_id for kind in kinds for type_id in btf.find(name, kind)]
    if not found:
        raise OptionError(f"there is no type {root!r}")
    return found[0]


def _aggregate(btf: Btf, type_id: int) -> Struct | Union | None:
    found = btf.type(btf.resolve(type_id))
    return found if isinstance(found, (Struct, Union)) else None


def _enter(btf: Btf, at: BtfPlace, name: str) -> BtfPlace:
    """The member ``name``, of this struct or of an anonymous one within it."""
    if _aggregate(btf, at.type_id) is None:
        raise OptionError(f"{at.path or 'the root'!r} is not a struct or union, it has no {name!r}")
    # Breadth first; a struct that does not have the name need not be searched
    # twice, which also ends a search in a ring of types.
    seen = {btf.resolve(at.type_id)}
    queue = [at]
    for place in queue:
        aggregate = _aggregate(btf, place.type_id)
        for member in aggregate.members if aggregate is not None else ():
            if member.name == name:
                return _down(place, member)
            inner = btf.resolve(member.type_id)
            if not member.name and inner not in seen:
                seen.add(inner)
                queue.append(_down(place, member))
    names = dict.fromkeys(
        member.name
        for place in queue
        for member in getattr(_aggregate(btf, place.type_id), "members", ())
        if member.name
    )
    shown = ", ".join([*names][:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
    raise OptionError(
        f"{btf.type_name(at.type_id)!r} has no member {name!r}; it has: {shown or 'none'}"
    )


def _down(place: BtfPlace, member: Member) -> BtfPlace:
    path = place.path
    if member.name:
        path = f"{path}.{member.name}" if path else member.name
    return BtfPlace(member.type_id, place.bit_off + member.bit_off, member.bitfield_size, path)


def _element(btf: Btf, at: BtfPlace, index: int) -> BtfPlace:
    array = btf.type(btf.resolve(at.type_id))
    if not isinstance(array, Array):
        raise OptionError(f"{at.path or 'the root'!r} is not an array, it has no element {index}")
    # A flexible array has count 0 and any number of elements.
    if array.count and index >= array.count:
        raise OptionError(f"{at.path!r} has {array.count} elements, no {index}")
    return _index(btf, at, array, index)


def _index(btf: Btf, at: BtfPlace, array: Array, index: int) -> BtfPlace:
    bit_off = at.bit_off + 8 * index * btf.size_of(array.type_id)
    return BtfPlace(array.type_id, bit_off, 0, f"{at.path}[{index}]")


def access_path(btf: Btf, type_id: int, access: str) -> BtfPlace:
    """Walk the access string of a field-based CO-RE record.

    The first number indexes the root as an array, each further one a
    struct's members or an array's elements.

    Args:
        btf: the types.
        type_id: the record's type_id.
        access: the string at its access_str_off, such as ``0:1:2``.

    Raises:
        FormatError: the string is malformed, or does not fit the types.

    Source: linux v6.1, tools/lib/bpf/relo_core.c, bpf_core_parse_spec(), and
    its limit of 64 numbers, BPF_CORE_SPEC_MAX_LEN.
    """
    if not _ACCESS.fullmatch(access):
        raise FormatError(f"CO-RE access string {access[:80]!r} is not 1 to 64 numbers with colons")
    first, *rest = (int(number) for number in access.split(":"))
    at = BtfPlace(type_id, 8 * first * btf.size_of(type_id) if first else 0)
    if first:
        at = BtfPlace(type_id, at.bit_off, 0, f"[{first}]")
    for index in rest:
        at = _step_by_index(btf, at, index)
    return at


def _step_by_index(btf: Btf, at: BtfPlace, index: int) -> BtfPlace:
    inner = btf.resolve(at.type_id)
    found = btf.type(inner)
    if isinstance(found, Array):
        # Whether an element exists is the loader's to say: flexible arrays have 0 or 1.
        return _index(btf, at, found, index)
    if not isinstance(found, (Struct, Union)):
        number = btf.head(inner).number
        raise FormatError(
            f"CO-RE access goes into type {inner}, which is {kind_name(number)}",
            btf.byte_off_of(inner),
        )
    if index >= len(found.members):
        raise FormatError(
            f"CO-RE access wants member {index} of type {inner}, which has {len(found.members)}",
            btf.byte_off_of(inner),
        )
    return _down(at, found.members[index])
