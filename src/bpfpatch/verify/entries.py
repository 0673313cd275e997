"""What to put into maps, so that look-ups find something."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from .case import Case, Entry
from .generate import some_bytes
from .mapstate import SECTION_KEY, MapState

_MOST_SECTION: Final = 4096
"""Larger sections are tables and not settings: these are left as they are."""


def filled(
    state: MapState, rng: random.Random, *, vary_rodata: bool
) -> Iterator[Callable[[Case], Case]]:
    """Changes of an input that give global variables other values."""
    for name, content in state.sections.items():
        if name.startswith(".rodata") and not vary_rodata:
            continue
        if len(content) > _MOST_SECTION:
            continue
        for value in _values(rng, len(content), content):
            yield partial(_with, entry=Entry(name, SECTION_KEY, value))


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
) -> Iterator[Case]:
    """The input with entries where it looked: where there was none, and other values where some.

    Args:
        case: the input.
        lookups: map, key, and whether it was there, of each look-up.
        state: the maps.
        rng: decides on values.
    """
    full = case
    for name, key, is_there in dict.fromkeys(lookups):
        size = state.value_size(name)
        if size is None:
            continue
        if is_there and any(one.map == name and one.key == key for one in case.entries):
            continue
        for value in _values(rng, size):
            yield case.with_entry(Entry(name, key, value))
        full = full.with_entry(Entry(name, key, some_bytes(rng, size)))
    if len(full.entries) > len(case.entries) + 1:
        yield full
