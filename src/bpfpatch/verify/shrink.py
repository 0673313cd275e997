"""A smaller input on which two programs still differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from .case import Case
from .generate import MIN_PACKET

MOST_TRIES: Final = 1500
"""Runs that shrinking takes at most."""

Differs = Callable[[Case], bool]


class _Budget:
    """Counts tries, and remembers what is the smallest so far."""

    def __init__(self, case: Case, differs: Differs, tries: int) -> None:
        self.best = case
        self._differs = differs
        self._left = tries

    def take(self, case: Case) -> bool:
        """Make this the smallest if it still differs."""
        if case == self.best or self._left <= 0:
            return False
        self._left -= 1
        if not self._differs(case):
            return False
        self.best = case
        return True

    @property
    def is_spent(self) -> bool:
        """Whether no tries are left."""
        return self._left <= 0


def shrink(case: Case, differs: Differs, tries: int = MOST_TRIES) -> Case:
    """Make an input smaller: fewer entries, a shorter packet, zeros in the place of bytes.

    Args:
        case: the input.
        differs: whether the programs differ on an input; they do on this one.
        tries: how often that may be asked.

    Returns:
        The smallest input found; nothing smaller by one step differs, unless tries ran out.
    """
    budget = _Budget(case, differs, tries)
    while not budget.is_spent:
        before = budget.best
        _drop(budget)
        _shorten(budget)
        _zero(budget)
        if budget.best == before:
            break
    return budget.best


def _drop(budget: _Budget) -> None:
    """Leave out entries, results and fields, first all and then each."""
    for name in ("entries", "results", "fields"):
        budget.take(_without(budget.best, name))
        at = 0
        while at < len(getattr(budget.best, name)) and not budget.is_spent:
            if not budget.take(_without(budget.best, name, at)):
                at += 1
    budget.take(replace(budget.best, seed=0))
    budget.take(replace(budget.best, memory=b""))


def _without(case: Case, name: str, at: int | None = None) -> Case:
    items = getattr(case, name)
    left = () if at is None else items[:at] + items[at + 1 :]
    if name == "entries":
        return replace(case, entries=left)
    return replace(case, results=left) if name == "results" else replace(case, fields=left)


def _shorten(budget: _Budget) -> None:
    """Cut the packet, the context and the memory at their ends."""
    for number, least in ((0, MIN_PACKET), (1, 0), (2, 0)):
        step = len(budget.best.buffers()[number]) // 2
        while step and not budget.is_spent:
            content = budget.best.buffers()[number]
            size = max(len(content) - step, least)
            if size == len(content) or not budget.take(
                budget.best.with_buffer(number, content[:size])
            ):
                step //= 2


def _zero(budget: _Budget) -> None:
    """Put zeros in, in large pieces and then in single bytes."""
    for number in range(len(budget.best.buffers())):
        for piece in (64, 16, 4, 1):
            for at in _pieces(budget.best.buffers()[number], piece):
                if budget.is_spent:
                    return
                content = bytearray(budget.best.buffers()[number])
                size = len(content[at : at + piece])
                content[at : at + piece] = bytes(size)
                budget.take(budget.best.with_buffer(number, bytes(content)))


def _pieces(content: bytes, piece: int) -> Iterator[int]:
    """Where pieces start that are not zeros already."""
    for at in range(0, len(content), piece):
        if any(content[at : at + piece]):
            yield at
