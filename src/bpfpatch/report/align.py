"""Alignment of two sequences by content: which instruction of one is which of the other.

A common start and end are cut off first. What is in between is split at
anchors: runs that are the same in both and occur once in each, long runs
before short ones. What no anchor splits any more is aligned exactly, in
windows of a bounded size. All in all the work is near-linear in the length.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Positions = NDArray[np.int64]

ANCHOR_LENGTHS: Final = (16, 4, 1, 1)
"""How long anchors are, in the order in which they are looked for."""

WINDOW: Final = 256
"""Side of the square that is aligned exactly, where a gap is larger than that."""

SMALL: Final = 1 << 16
"""A gap of at most this many pairs is aligned exactly in one go."""

_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)

Gap = tuple[int, int, int, int, int]
"""First and end in one sequence, first and end in the other, next row of ANCHOR_LENGTHS."""


def align(old: Ids, new: Ids) -> tuple[Positions, Positions]:
    """Pair up equal elements of two sequences, in order.

    Args:
        old: (n,) what each element is, as a number.
        new: (m,) likewise.

    Returns:
        Two (k,) arrays of positions, both strictly ascending, with
        ``old[first] == new[second]``.
    """
    first: list[Positions] = []
    second: list[Positions] = []

    def keep(a: Positions, b: Positions) -> None:
        first.append(a)
        second.append(b)

    gaps: list[Gap] = [(0, old.size, 0, new.size, 0)]
    while gaps:
        a0, a1, b0, b1, level = gaps.pop()
        head = _common(old[a0:a1], new[b0:b1])
        keep(np.arange(a0, a0 + head), np.arange(b0, b0 + head))
        a0, b0 = a0 + head, b0 + head
        tail = _common(old[a0:a1][::-1], new[b0:b1][::-1])
        a1, b1 = a1 - tail, b1 - tail
        keep(np.arange(a1, a1 + tail), np.arange(b1, b1 + tail))
        if a0 == a1 or b0 == b1:
            continue
        if (a1 - a0) * (b1 - b0) <= SMALL or level == len(ANCHOR_LENGTHS):
            a, b = _in_windows(old[a0:a1], new[b0:b1])
            keep(a + a0, b + b0)
            continue
        a, b = _anchors(old[a0:a1], new[b0:b1], ANCHOR_LENGTHS[level])
        keep(a + a0, b + b0)
        gaps += _between(a + a0, b + b0, (a0, a1, b0, b1, level + 1))
    return _sorted(first, second)


def _sorted(first: list[Positions], second: list[Positions]) -> tuple[Positions, Positions]:
    a, b = np.concatenate(first), np.concatenate(second)
    order = np.argsort(a)
    return a[order], b[order]


def _common(a: Ids, b: Ids) -> int:
    """How many elements the two have in common from the start on."""
    n = min(a.size, b.size)
    step = 64
    done = 0
    while done < n:
        end = min(done + step, n)
        differs = a[done:end] != b[done:end]
        if differs.any():
            return done + int(np.argmax(differs))
        done, step = end, 2 * step
    return n


def _between(a: Positions, b: Positions, gap: Gap) -> list[Gap]:
    """The gaps that anchors leave; those with nothing on one side are left out."""
    a0, a1, b0, b1, level = gap
    a_from, a_to = np.append(a0, a + 1), np.append(a, a1)
    b_from, b_to = np.append(b0, b + 1), np.append(b, b1)
    rows = np.flatnonzero((a_to > a_from) & (b_to > b_from))
    columns = (a_from[rows], a_to[rows], b_from[rows], b_to[rows])
    return [
        (*bounds, level) for bounds in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _anchors(a: Ids, b: Ids, length: int) -> tuple[Positions, Positions]:
    """Starts of the runs that occur once in each; of those that cross, the most that do not."""
    if min(a.size, b.size) < length:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    a_hash, a_at = _once(_rolling(a, length))
    b_hash, b_at = _once(_rolling(b, length))
    _, in_a, in_b = np.intersect1d(a_hash, b_hash, assume_unique=True, return_indices=True)
    first, second = a_at[in_a], b_at[in_b]
    order = np.argsort(first)
    first, second = first[order], second[order]
    same = a[first] == b[second]  # a hash of a run may deceive, its first element does not
    first, second = first[same], second[same]
    rows = _ascending(second)
    return first[rows], second[rows]


def _rolling(ids: Ids, length: int) -> NDArray[np.uint64]:
    """A hash of each run of this length."""
    words = ids.astype(np.uint64)
    n = words.size - length + 1
    out = np.zeros(n, np.uint64)
    for step in range(length):
        out = out * _FACTOR + words[step : step + n] + np.uint64(1)
    return out


def _once(values: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], Positions]:
    """The values that occur once, ascending, and where."""
    unique, at, count = np.unique(values, return_index=True, return_counts=True)
    return unique[count == 1], at[count == 1]


def _ascending(values: Positions) -> Positions:
    """Rows of a longest ascending subsequence."""
    if values.size == 0 or (values[1:] > values[:-1]).all():
        return np.arange(values.size)
    tops: list[int] = []
    top_rows: list[int] = []
    before = [-1] * values.size
    for row, value in enumerate(values.tolist()):
        pile = bisect_left(tops, value)
        before[row] = top_rows[pile - 1] if pile else -1
        if pile == len(tops):
            tops.append(value)
            top_rows.append(row)
        else:
            tops[pile], top_rows[pile] = value, row
    out = []
    row = top_rows[-1]
    while row >= 0:
        out.append(row)
        row = before[row]
    return np.array(out[::-1], np.int64)


def _in_windows(a: Ids, b: Ids) -> tuple[Positions, Positions]:
    """Align a gap exactly if it is small, else window by window."""
    if a.size * b.size <= SMALL:
        return _exact(a, b)
    first: list[Positions] = []
    second: list[Positions] = []
    at_a = at_b = 0
    while at_a < a.size and at_b < b.size:
        in_a, in_b = _exact(a[at_a : at_a + WINDOW], b[at_b : at_b + WINDOW])
        is_last = at_a + WINDOW >= a.size and at_b + WINDOW >= b.size
        # The second half of a window knows too little of what follows it.
        sure = (in_a < WINDOW // 2) & (in_b < WINDOW // 2) if not is_last else in_a >= 0
        first.append(in_a[sure] + at_a)
        second.append(in_b[sure] + at_b)
        if is_last:
            break
        step_a, step_b = _step(in_a, in_b, sure)
        at_a, at_b = at_a + step_a, at_b + step_b
    return np.concatenate(first), np.concatenate(second)


def _step(in_a: Positions, in_b: Positions, sure: NDArray[np.bool_]) -> tuple[int, int]:
    """How far to go on in each: half a window at least in one of them."""
    if not sure.all():
        # Up to the first pair that was left open, nothing else can match.
        return int(in_a[~sure][0]), int(in_b[~sure][0])
    if not sure.size:
        return WINDOW // 2, WINDOW // 2
    return max(int(in_a[-1]) + 1, WINDOW // 2), max(int(in_b[-1]) + 1, WINDOW // 2)


def _exact(a: Ids, b: Ids) -> tuple[Positions, Positions]:
    """A longest common subsequence; of several, the one that the textbook's table gives.

    In plain Python::

        length[i][j] = max(length[i-1][j], length[i][j-1], length[i-1][j-1] + (a[i] == b[j]))

    read from its last corner: up where that loses nothing, else to the left where that loses
    nothing, else both are a pair.
    """
    if a.size > b.size:
        second, first = _exact(b, a)
        return first, second
    one, other = a.tolist(), b.tolist()
    # Where code was only put in, all of it is still there, and read like this the table pairs
    # each with the first place that leaves room for those before it.
    at = _embedded(one, other)
    if at is not None:
        return np.arange(a.size), np.array(at, np.int64)
    return _by_rows(one, other)


def _embedded(one: list[int], other: list[int]) -> list[int] | None:
    """The first places at which the elements of one follow one another in the other, or None."""
    out = []
    at = -1
    try:
        for element in one:
            at = other.index(element, at + 1)
            out.append(at)
    except ValueError:
        return None
    return out


def _by_rows(one: list[int], other: list[int]) -> tuple[Positions, Positions]:
    """The textbook's table, each row a number: bit j is clear where length[i] grows at j.

    Source: H. Hyyro, Bit-parallel LCS-length computation revisited, 2004.
    """
    full = (1 << len(other)) - 1
    where: dict[int, int] = {}
    for j, element in enumerate(other):
        where[element] = where.get(element, 0) | 1 << j
    rows = [full]
    for element in one:
        row = rows[-1]
        pairs = row & where.get(element, 0)
        rows.append(((row + pairs) | (row - pairs)) & full)
    in_one, in_other = [], []
    i, j = len(one), len(other)
    row_bits = _bits(rows[i], len(other))
    here = row_bits.count("0")
    while here:
        i -= 1
        above = _bits(rows[i], len(other))
        n_above = above.count("0", 0, j)
        while n_above < here and row_bits[j - 1] == "1":
            j -= 1
            n_above -= above[j] == "0"
        if n_above < here:
            j, here = j - 1, here - 1
            in_one.append(i)
            in_other.append(j)
        row_bits = above
    return np.array(in_one[::-1], np.int64), np.array(in_other[::-1], np.int64)


def _bits(number: int, size: int) -> str:
    """Its bits, the lowest one first."""
    return f"{number:0{size}b}"[::-1]
