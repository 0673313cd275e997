"""Inputs that make a comparison come out otherwise, given the bytes that it depends on.

How a number comes out of these bytes is not known. Mostly it is the bytes
themselves in either order, perhaps masked, shifted or with something added. So
the difference between what is compared and what is wanted is put into the
bytes in each of these ways, and single bytes are tried out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from .case import Case
from .coverage import GOTOX, BranchSite, Compare

Place: TypeAlias = tuple[int, int]
"""A byte of an input: number of the buffer and index in it."""

_WIDEST: Final = 8
_LONGEST: Final = 1 << 16
_MOST_INDICES: Final = 256
"""Of a jump table, that are tried."""

_ORDERS: Final[tuple[Literal["big", "little"], ...]] = ("big", "little")


class Effort(Enum):
    """How hard to try: with so many inputs."""

    OPEN = 400
    TIP = 90


@dataclass(frozen=True, slots=True)
class SolveTarget:
    """The nth time that a comparison is made in a run."""

    compare: Compare
    occurrence: int


def wanted(branch: BranchSite, is_left: bool, mine: int, other: int) -> list[int]:
    """Values of one operand at which the comparison tips, given what the other one is.

    The values that turn it are among them, for any kind of comparison.
    """
    if branch.op == GOTOX:
        # What is known is where it went: any index may be the next one, from 0 or from here.
        n_steps = min(4 * len(branch.table), _MOST_INDICES)
        return [*range(n_steps), *range((1 << 64) - n_steps, 1 << 64)]
    top = 1 << branch.bits
    if branch.op == "jset":
        bits = [other & -other, other, ~other, mine & ~other, mine | other]
    else:
        bits = [other, other + 1, other - 1, 0, mine ^ 1]
    # At these signed and unsigned, and 32 and 64 bits, part.
    edges = [top >> 1, (top >> 1) - 1, top - 1, other | top >> 1, other | 1 << 32, -other]
    edges += [other ^ 1 << 31, other | 1 << 16, other + (1 << 8)] if is_left else []
    seen: dict[int, None] = {}
    for value in bits + edges:
        low = value & ((1 << 64) - 1)
        if low != mine:
            seen[low] = None
    return list(seen)


def more_for(compare: Compare, other: Compare, step: int, branch: BranchSite) -> Iterator[int]:
    """How much longer a packet has to be for a comparison to tip, if operands follow its length.

    Args:
        compare: what was compared.
        other: what was compared where the packet was longer.
        step: by how much it was.
        branch: the instruction.
    """
    if branch.op == GOTOX:
        if other.left != compare.left:
            yield from range(-len(branch.table), len(branch.table) + 1)
        return
    top = 1 << branch.bits
    gap = _signed(compare.left - compare.right, top)
    change = _signed(other.left - other.right, top) - gap
    if not change:
        return
    for wanted_gap in (0, 1, -1):
        more = (wanted_gap - gap) * step / change
        if abs(more) < _LONGEST:
            yield round(more)


def _signed(number: int, top: int) -> int:
    return (number + top // 2) % top - top // 2


def solutions(
    case: Case,
    compare: Compare,
    branch: BranchSite,
    places: list[Place],
    effort: Effort,
    *,
    is_left: bool,
) -> Iterator[Case]:
    """Inputs that may turn a comparison.

    Args:
        case: the input in which it was made.
        compare: what was compared.
        branch: the instruction.
        places: bytes that the operand depends on.
        effort: how hard to try.
        is_left: whether these change the left operand, else the right one.
    """
    mine, other = (compare.left, compare.right) if is_left else (compare.right, compare.left)
    mine = 0 if branch.op == GOTOX else mine
    seen = {case}
    for changed in _candidates(case, wanted(branch, is_left, mine, other), places, mine, effort):
        if changed not in seen:
            seen.add(changed)
            yield changed
        if len(seen) > effort.value:
            return


def _candidates(
    case: Case, values: list[int], places: list[Place], mine: int, effort: Effort
) -> Iterator[Case]:
    runs = _runs(places)
    if effort is Effort.OPEN and len(places) <= 2:
        # The likely values first, then all of them.
        yield from _all_written(case, runs, values[:3], mine, 4)
        for buffer, at in places:
            for byte in range(256):
                yield _with(case, buffer, at, bytes([byte]))
    yield from _all_written(case, runs, values, mine, 4)
    if effort is Effort.OPEN:
        yield from _all_written(case, runs, values, mine, 32)


def _all_written(
    case: Case, runs: list[tuple[int, int, int]], values: list[int], mine: int, n_ways: int
) -> Iterator[Case]:
    for value in values:
        for run in runs:
            yield from _written(case, run, mine, value, n_ways)


def _runs(places: list[Place]) -> list[tuple[int, int, int]]:
    """Neighbouring bytes together: (buffer, first, how many), of 8 bytes at most."""
    out: list[tuple[int, int, int]] = []
    for buffer, at in sorted(places):
        if out:
            last, first, size = out[-1]
            if last == buffer and first + size == at and size < _WIDEST:
                out[-1] = (buffer, first, size + 1)
                continue
        out.append((buffer, at, 1))
    return out[:6]


def _written(
    case: Case, run: tuple[int, int, int], mine: int, value: int, n_ways: int
) -> Iterator[Case]:
    """A value put into a run of bytes in all ways that come to mind."""
    buffer, at, size = run
    mask = (1 << 8 * size) - 1
    old_bytes = case.buffers()[buffer][at : at + size]
    for order in _ORDERS if size > 1 else _ORDERS[:1]:
        old = int.from_bytes(old_bytes, order)
        changes = [value, old + value - mine, old - value + mine, old ^ value ^ mine]
        # The bytes may be swapped before the comparison, or shifted to the left or right.
        if size > 1:
            swapped = int.from_bytes(((value ^ mine) & mask).to_bytes(size, "little"), "big")
            changes.append(old ^ swapped)
        for shift in (1, 2, 3, 4):
            step = (value ^ mine) & ((1 << 64) - 1)
            changes += [old ^ step << shift, old ^ step >> shift]
        for number in changes[:n_ways]:
            yield _with(case, buffer, at, (number & mask).to_bytes(size, order))


def _with(case: Case, buffer: int, at: int, content: bytes) -> Case:
    old = case.buffers()[buffer]
    return case.with_buffer(buffer, old[:at] + content + old[at + len(content) :])
