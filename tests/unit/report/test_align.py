"""Alignment by content."""

from __future__ import annotations

import difflib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfpatch.report.align import WINDOW, _exact, align

SEQUENCES = st.lists(st.integers(0, 6), max_size=40)


def pairs(old: list[int], new: list[int]) -> list[tuple[int, int]]:
    """The pairs of two sequences."""
    first, second = align(np.array(old, np.int64), np.array(new, np.int64))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def longest(old: list[int], new: list[int]) -> int:
    """Length of a longest common subsequence, by the recurrence that defines it."""
    row = [0] * (len(new) + 1)
    for value in old:
        before, row = row, [0]
        for j, other in enumerate(new):
            best = before[j] + 1 if value == other else max(before[j + 1], row[j])
            row.append(best)
    return row[-1]


@given(SEQUENCES, SEQUENCES)
@settings(max_examples=300, deadline=None)
def test_pairs_are_equal_and_in_order(old: list[int], new: list[int]) -> None:
    """Paired elements are equal, and pairs ascend in both sequences."""
    found = pairs(old, new)
    assert pairs(old, old) == [(at, at) for at in range(len(old))]
    assert all(old[i] == new[j] for i, j in found)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(found))


@given(SEQUENCES, SEQUENCES)
@settings(max_examples=300, deadline=None)
def test_short_sequences_lose_nothing(old: list[int], new: list[int]) -> None:
    """Where the gaps are small, as many elements are paired as can be."""
    assert len(pairs(old, new)) == longest(old, new)


def by_table(old: list[int], new: list[int]) -> list[tuple[int, int]]:
    """The pairs that the textbook's table gives, the shorter sequence down its side."""
    if len(old) > len(new):
        return [(i, j) for j, i in by_table(new, old)]
    length = [[0] * (len(new) + 1)]
    for value in old:
        above, row = length[-1], [0]
        for j, other in enumerate(new):
            row.append(max(above[j + 1], row[j], above[j] + (value == other)))
        length.append(row)
    i, j, out = len(old), len(new), []
    while i and j:
        if length[i - 1][j] == length[i][j]:
            i -= 1
        elif length[i][j - 1] == length[i][j]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            out.append((i, j))
    return out[::-1]


@given(SEQUENCES, SEQUENCES)
@settings(max_examples=300, deadline=None)
def test_of_several_longest_the_table_decides(old: list[int], new: list[int]) -> None:
    """Of several longest common subsequences it is the one that the textbook's table gives."""
    first, second = _exact(np.array(old, np.int64), np.array(new, np.int64))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == by_table(old, new)


@given(SEQUENCES)
@settings(deadline=None)
def test_a_sequence_is_all_of_itself(values: list[int]) -> None:
    """A sequence aligned with itself pairs every element with itself."""
    assert pairs(values, values) == [(i, i) for i in range(len(values))]


@pytest.mark.parametrize(("old", "new"), [([], []), ([], [1, 2]), ([1], [])])
def test_nothing_has_no_pairs(old: list[int], new: list[int]) -> None:
    """An empty sequence has nothing to pair."""
    assert pairs(old, new) == []


def test_insertion_everywhere_in_a_long_sequence() -> None:
    """Something new before each of many elements hides none of them."""
    values = np.random.default_rng(1).integers(0, 50, 4 * WINDOW)
    new = np.stack([np.full(values.size, 99), values], 1).ravel()
    first, second = align(values, new)
    assert first.tolist() == list(range(values.size))
    assert second.tolist() == [2 * i + 1 for i in range(values.size)]


def test_moderate_edits_match_difflib() -> None:
    """With few values and scattered edits, at least as much is paired as difflib pairs."""
    rng = np.random.default_rng(2)
    old = rng.integers(0, 40, 3000)
    new = np.repeat(old[rng.random(old.size) > 0.1], 1)
    new = np.insert(new, np.sort(rng.integers(0, new.size, 200)), 77)
    first, _ = align(old, new)
    theirs = difflib.SequenceMatcher(None, old.tolist(), new.tolist(), autojunk=False)
    assert first.size >= sum(block.size for block in theirs.get_matching_blocks())


def test_a_long_insertion_is_skipped() -> None:
    """A run that is much longer than a window, put in the middle, leaves the rest aligned."""
    rng = np.random.default_rng(3)
    old = rng.integers(0, 30, 600)
    new = np.concatenate([old[:300], rng.integers(100, 130, 5 * WINDOW), old[300:]])
    first, _ = align(old, new)
    assert first.tolist() == list(range(600))
