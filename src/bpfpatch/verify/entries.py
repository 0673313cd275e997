"""What to put into maps, so that look-ups find something."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Final

from .case import Case, Entry
from .generate import some_bytes
from .mapstate import SECTION_KEY, MapState

_MOST_SECTION: Final = 4096
"""Larger sections are tables and not settings: these are left as they are."""


Places = Collection[tuple[str, bytes]]
"""Map and key of entries that a setup gives, and that stay as they are."""


def filled(
    state: MapState, rng: random.Random, *, vary_rodata: bool, fixed: Places = ()
) -> Iterator[Callable[[Case], Case]]:
    """Changes of an input that give global variables other values."""
    for name, content in state.sections.items():
        if not _is_varied(name, content, vary_rodata) or (name, SECTION_KEY) in fixed:
            continue
        for value in _values(rng, len(content), content):
            yield partial(_with, entry=Entry(name, SECTION_KEY, value))


def _is_varied(name: str, content: bytes, vary_rodata: bool) -> bool:
    is_fixed = name.startswith(".rodata") and not vary_rodata
    return not is_fixed and len(content) <= _MOST_SECTION


def with_initial(
    case: Case,
    places: Iterable[tuple[str, bytes]],
    state: MapState,
    *,
    vary_rodata: bool,
    fixed: Places = (),
) -> Case:
    """The input with what arrays and global data hold anyway, so that it can be changed.

    Args:
        case: the input.
        places: map and key of elements; those of other maps than arrays are left out.
        state: the maps.
        vary_rodata: whether read-only sections are global data that may be changed.
        fixed: what is not to be changed.
    """
    sections = [
        (name, SECTION_KEY)
        for name, content in state.sections.items()
        if _is_varied(name, content, vary_rodata)
    ]
    given = {(one.map, one.key) for one in case.entries} | set(fixed)
    for place in (*places, *sections):
        initial = state.initial(place[0])
        if initial and place not in given:
            case = case.with_entry(Entry(*place, initial))
    return case


def _with(case: Case, entry: Entry) -> Case:
    return case.with_entry(entry)


def _values(rng: random.Random, size: int, content: bytes = b"") -> Iterator[bytes]:
    if any(content):
        yield content
    yield bytes(size)
    yield b"\1" * size
    yield (b"\1" + bytes(3)) * (size // 4) + bytes(size % 4)
    yield some_bytes(rng, size)


def hits(
    case: Case,
    lookups: Iterable[tuple[str, bytes, bool]],
    state: MapState,
    rng: random.Random,
    fixed: Places = (),
) -> Iterator[Case]:
    """The input with entries where it looked: where there was none, and other values where some.

    Args:
        case: the input.
        lookups: map, key, and whether it was there, of each look-up.
        state: the maps.
        rng: decides on values.
        fixed: what is not to be changed.
    """
    full = case
    for name, key, is_there in dict.fromkeys(lookups):
        size = state.value_size(name)
        if size is None or (name, key) in fixed:
            continue
        if is_there and any(one.map == name and one.key == key for one in case.entries):
            continue
        for value in _values(rng, size):
            yield case.with_entry(Entry(name, key, value))
        full = full.with_entry(Entry(name, key, some_bytes(rng, size)))
    if len(full.entries) > len(case.entries) + 1:
        yield full
