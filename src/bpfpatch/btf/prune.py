"""Leave types out of a .BTF section, and number the others anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bpfpatch.errors import UnsupportedError

from .btf import Btf
from .builder import assemble_section
from .wire import HEAD_WORDS, Kind, info_kind, info_vlen, pack_words

_IN_HEAD: Final = frozenset(
    {
        Kind.PTR,
        Kind.TYPEDEF,
        Kind.VOLATILE,
        Kind.CONST,
        Kind.RESTRICT,
        Kind.FUNC,
        Kind.FUNC_PROTO,
        Kind.VAR,
        Kind.DECL_TAG,
        Kind.TYPE_TAG,
    }
)
"""Kinds whose head ends in the id of a type."""

_ITEMS: Final = {
    Kind.STRUCT: (3, 1),
    Kind.UNION: (3, 1),
    Kind.FUNC_PROTO: (2, 1),
    Kind.DATASEC: (3, 0),
}
"""Kinds with items that name types: words of an item, and which of them is the id."""


def unneeded(btf: Btf, gone: Iterable[int], needed: Iterable[int]) -> set[int]:
    """The types that leave with some: all that only they, and each other, refer to.

    Args:
        btf: the types.
        gone: ids of those that leave, unless something that stays refers to them.
        needed: ids that something outside of the types refers to.
    """
    refers = {type_id: list(_named(_words(btf, type_id))) for type_id in range(1, len(btf))}
    start = set(gone)
    # A tag is of what it is on.
    start |= {
        type_id
        for type_id, targets in refers.items()
        if info_kind(_words(btf, type_id)[1]) == Kind.DECL_TAG and start.intersection(targets)
    }
    candidates = _closure(refers, start)
    kept = set(refers) - candidates
    return candidates - _closure(refers, kept | set(needed))


def _closure(refers: dict[int, list[int]], start: Iterable[int]) -> set[int]:
    out = {type_id for type_id in start if type_id}
    todo = list(out)
    while todo:
        for target in refers.get(todo.pop(), ()):
            if target and target not in out:
                out.add(target)
                todo.append(target)
    return out


def without_types(btf: Btf, gone: Collection[int]) -> tuple[Btf, NDArray[np.int64]]:
    """The section without some types; strings stay where they are.

    Args:
        btf: the types.
        gone: ids of those that leave; nothing that stays may refer to them.

    Returns:
        The new section, and (len,) the new id of each old one, 0 for those that left.

    Raises:
        UnsupportedError: it is a split section, or has records of a kind that is not known.
    """
    if btf.base is not None or btf.unknown_kind is not None:
        raise UnsupportedError("types can be left out of a whole .BTF of known kinds only")
    is_kept = np.ones(len(btf), bool)
    is_kept[list(gone)] = False
    new_id = np.where(is_kept, np.cumsum(is_kept) - 1, 0).astype(np.int64)
    pieces = []
    for type_id in np.flatnonzero(is_kept).tolist()[1:]:
        words = _words(btf, type_id)
        for at in _places(words):
            assert is_kept[words[at]], "a type that stays refers to one that leaves"
            words[at] = int(new_id[words[at]])
        pieces.append(pack_words(words, btf.byteorder))
    header = btf.header
    sections = [
        (header.types, b"".join(pieces)),
        (header.strings, btf.string_bytes),
        (header.layout, btf.to_bytes()[header.layout.byte_off : header.layout.end]),
    ]
    return Btf.parse(assemble_section(btf, sections), btf.byteorder), new_id


def _words(btf: Btf, type_id: int) -> list[int]:
    start = btf.byte_off_of(type_id)
    data = btf.to_bytes()[start : btf.end_of(type_id)]
    order = "<u4" if btf.byteorder == "little" else ">u4"
    words: list[int] = np.frombuffer(data, order).tolist()
    return words


def _named(words: list[int]) -> Iterator[int]:
    return (words[at] for at in _places(words))


def _places(words: list[int]) -> Iterator[int]:
    """Which words of a record are ids of types."""
    kind = info_kind(words[1])
    if kind in _IN_HEAD:
        yield 2
    if kind == Kind.ARRAY:
        yield from (HEAD_WORDS, HEAD_WORDS + 1)
    if kind in _ITEMS:
        size, at = _ITEMS[Kind(kind)]
        yield from range(HEAD_WORDS + at, HEAD_WORDS + size * info_vlen(words[1]), size)
