"""Whether a program's type and a kernel's are the same for CO-RE.

Source: linux v6.1, tools/lib/bpf/relo_core.c: bpf_core_types_are_compat(),
bpf_core_fields_are_compat(), bpf_core_types_match() and what they call.
"""

from __future__ import annotations

import re
from typing import Final

from bpfpatch.btf import (
    Array,
    Btf,
    BtfType,
    Enum,
    Enum64,
    Float,
    FuncProto,
    Fwd,
    Int,
    IntEncoding,
    Ptr,
    Struct,
    Union,
    Void,
)
from bpfpatch.errors import UnsupportedError

_DEPTH: Final = 32
_FLAVOR: Final = re.compile(r"(?<=[^_])___(?=[^_])")


def essential_name(name: str) -> str:
    """A name without its flavor, which is what follows the last ``___``.

    Source: linux v6.1, tools/lib/bpf/relo_core.c, bpf_core_essential_name_len().
    """
    end = None
    for mark in _FLAVOR.finditer(name):
        end = mark.start()
    return name[:end]


def same_kind(local: BtfType, theirs: BtfType) -> bool:
    """Whether two records are of one kind, both sizes of enums counting as one."""
    if isinstance(local, (Enum, Enum64)):
        return isinstance(theirs, (Enum, Enum64))
    return type(local) is type(theirs)


def are_compatible(
    local_btf: Btf, local_id: int, kernel: Btf, their_id: int, level: int = _DEPTH
) -> bool:
    """Whether two types are compatible as wholes, for TYPE_EXISTS, TYPE_SIZE and the like.

    Raises:
        UnsupportedError: the types are nested deeper than 32 levels.
    """
    if level < 0:
        raise _too_deep(local_btf, local_id)
    for _ in range(_DEPTH):
        local = local_btf.type(local_btf.resolve(local_id))
        theirs = kernel.type(kernel.resolve(their_id))
        if not same_kind(local, theirs):
            return False
        if isinstance(local, (Void, Struct, Union, Enum, Enum64, Fwd)):
            return True
        if isinstance(local, Int) and isinstance(theirs, Int):
            return local.bit_off == 0 and theirs.bit_off == 0
        if isinstance(local, (Ptr, Array)) and isinstance(theirs, (Ptr, Array)):
            local_id, their_id = local.type_id, theirs.type_id
        elif isinstance(local, FuncProto) and isinstance(theirs, FuncProto):
            if len(local.params) != len(theirs.params):
                return False
            for mine, other in zip(local.params, theirs.params, strict=True):
                if not are_compatible(local_btf, mine.type_id, kernel, other.type_id, level - 1):
                    return False
            local_id, their_id = local.type_id, theirs.type_id
        else:
            return False
    raise _too_deep(local_btf, local_id)


def fields_compatible(local_btf: Btf, local_id: int, kernel: Btf, their_id: int) -> bool:
    """Whether a field of the one type can stand for a field of the other.

    Raises:
        UnsupportedError: arrays are nested deeper than 32 levels.
    """
    for _ in range(_DEPTH):
        local = local_btf.type(local_btf.resolve(local_id))
        theirs = kernel.type(kernel.resolve(their_id))
        if isinstance(local, (Struct, Union)) and isinstance(theirs, (Struct, Union)):
            return True
        if not same_kind(local, theirs):
            return False
        if isinstance(local, (Ptr, Float)):
            return True
        if isinstance(local, (Fwd, Enum, Enum64)):
            mine, other = essential_name(local.name), essential_name(theirs.name)
            return not mine or not other or mine == other
        if isinstance(local, Int) and isinstance(theirs, Int):
            return local.bit_off == 0 and theirs.bit_off == 0
        if not (isinstance(local, Array) and isinstance(theirs, Array)):
            return False
        local_id, their_id = local.type_id, theirs.type_id
    raise _too_deep(local_btf, local_id)


def types_match(local_btf: Btf, local_id: int, kernel: Btf, their_id: int) -> bool:
    """Whether all that the program declares of a type is in the kernel's, for TYPE_MATCHES.

    Raises:
        UnsupportedError: the types are nested deeper than 32 levels.
    """
    return _Matcher(local_btf, kernel).types(local_id, their_id, behind_ptr=False, level=_DEPTH)


class _Matcher:
    def __init__(self, local: Btf, kernel: Btf) -> None:
        self.local = local
        self.kernel = kernel

    def types(self, local_id: int, their_id: int, *, behind_ptr: bool, level: int) -> bool:
        if level <= 0:
            raise _too_deep(self.local, local_id)
        for _ in range(_DEPTH):
            local = self.local.type(self.local.resolve(local_id))
            theirs = self.kernel.type(self.kernel.resolve(their_id))
            if not _names_match(local.name, theirs.name):
                return False
            if isinstance(local, (Struct, Union)):
                return self._composite(local, theirs, behind_ptr=behind_ptr, level=level)
            if not isinstance(local, (Ptr, Array, FuncProto)):
                return _leaves(local, theirs, behind_ptr=behind_ptr)
            if not self._enter(local, theirs, behind_ptr=behind_ptr, level=level):
                return False
            assert isinstance(theirs, (Ptr, Array, FuncProto))
            behind_ptr = behind_ptr or isinstance(local, Ptr)
            local_id, their_id = local.type_id, theirs.type_id
        raise _too_deep(self.local, local_id)

    def _enter(self, local: BtfType, theirs: BtfType, *, behind_ptr: bool, level: int) -> bool:
        """What has to match before going on with what a type refers to."""
        if isinstance(local, Array) and isinstance(theirs, Array):
            return local.count == theirs.count
        if isinstance(local, FuncProto) and isinstance(theirs, FuncProto):
            return len(local.params) == len(theirs.params) and all(
                self.types(mine.type_id, other.type_id, behind_ptr=behind_ptr, level=level - 1)
                for mine, other in zip(local.params, theirs.params, strict=True)
            )
        return type(local) is type(theirs)

    def _composite(
        self, local: Struct | Union, theirs: BtfType, *, behind_ptr: bool, level: int
    ) -> bool:
        if behind_ptr:
            if isinstance(theirs, Fwd):
                return theirs.is_union == isinstance(local, Union)
            return type(local) is type(theirs)
        if type(local) is not type(theirs) or not isinstance(theirs, (Struct, Union)):
            return False
        return len(local.members) <= len(theirs.members) and all(
            any(
                _names_match(mine.name, other.name)
                and self.types(mine.type_id, other.type_id, behind_ptr=False, level=level - 1)
                for other in theirs.members
            )
            for mine in local.members
        )


def _leaves(local: BtfType, theirs: BtfType, *, behind_ptr: bool) -> bool:
    """Whether types that refer to no others match."""
    if isinstance(local, Fwd):
        return _forward(local, theirs, behind_ptr=behind_ptr)
    if isinstance(local, (Enum, Enum64)):
        return isinstance(theirs, (Enum, Enum64)) and _enums(local, theirs)
    if isinstance(local, Int) and isinstance(theirs, Int):
        same_sign = not (local.encoding ^ theirs.encoding) & IntEncoding.SIGNED
        return local.size == theirs.size and same_sign
    return isinstance(local, Void) and isinstance(theirs, Void)


def _forward(local: Fwd, theirs: BtfType, *, behind_ptr: bool) -> bool:
    if isinstance(theirs, Fwd):
        return local.is_union == theirs.is_union
    return behind_ptr and isinstance(theirs, Union if local.is_union else Struct)


def _enums(local: Enum | Enum64, theirs: Enum | Enum64) -> bool:
    if local.size != theirs.size or len(local.values) > len(theirs.values):
        return False
    names = {essential_name(value.name) for value in theirs.values}
    return all(essential_name(value.name) in names for value in local.values)


def _names_match(mine: str, other: str) -> bool:
    if not other:
        return not mine
    return essential_name(mine) == essential_name(other)


def _too_deep(btf: Btf, type_id: int) -> UnsupportedError:
    return UnsupportedError(
        f"type {type_id} ({btf.type_name(type_id)}) is nested deeper than {_DEPTH} levels, "
        "as far as CO-RE compares types"
    )
