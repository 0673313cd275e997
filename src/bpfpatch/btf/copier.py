"""Copies of types, as far as a loader compares them with the kernel's."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bpfpatch.errors import UnsupportedError

from .btf import Btf
from .builder import BtfBuilder
from .types import (
    Array,
    BtfType,
    Const,
    FuncProto,
    Ptr,
    Restrict,
    Struct,
    Typedef,
    TypeTag,
    Union,
    Volatile,
)

_MOST_DEEP: Final = 32


class TypeCopier:
    """Copies types into others; of structs and unions the name alone.

    Args:
        source: whose types are copied, such as the kernel's.
        types: where they go.
    """

    def __init__(self, source: Btf, types: BtfBuilder) -> None:
        self._source = source
        self._types = types
        self._known: dict[int, int] = {0: 0}

    def copy(self, type_id: int, depth: int = 0) -> int:
        """The copy's id; each type is copied once.

        Raises:
            UnsupportedError: types refer to each other over more than 32 levels.
        """
        if type_id in self._known:
            return self._known[type_id]
        if depth > _MOST_DEEP:
            raise UnsupportedError(f"the kernel's type {type_id} refers to more than {_MOST_DEEP}")
        found = self._source.type(type_id)
        self._known[type_id] = self._types.add(self._cut(found, depth + 1))
        return self._known[type_id]

    def _cut(self, found: BtfType, depth: int) -> BtfType:
        if isinstance(found, Struct | Union):
            return replace(found, size=0, members=(), kind_flag=False)
        if isinstance(found, FuncProto):
            params = tuple(
                replace(one, type_id=self.copy(one.type_id, depth)) for one in found.params
            )
            return replace(found, type_id=self.copy(found.type_id, depth), params=params)
        if isinstance(found, Array):
            element = self.copy(found.type_id, depth)
            index = self.copy(found.index_type_id, depth)
            return replace(found, type_id=element, index_type_id=index)
        if isinstance(found, Ptr | Typedef | Const | Volatile | Restrict | TypeTag):
            return replace(found, type_id=self.copy(found.type_id, depth))
        return found
