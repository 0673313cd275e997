"""The patch list against its naive model: random programs, random edits in several rounds.

`long.py model` beside this file runs as many more as one asks for.
"""

from __future__ import annotations

import pytest

from bpfpatch.isa import decode
from bpfpatch.patch import patchlist
from support.models.edited import run_case

# (most runs merged, first seed, cases): 1,000 programs in all; `make fuzz-model` runs more.
MODES = [
    *[(None, first, 250) for first in range(0, 500, 250)],
    *[(0, first, 250) for first in range(3000, 3250, 250)],
    *[(50, first, 250) for first in range(4000, 4250, 250)],
]


@pytest.mark.parametrize(("max_runs", "first", "n_cases"), MODES)
def test_list_equals_model(monkeypatch, max_runs, first, n_cases):
    """However it is merged, looked at and restarted, a list does what its plain model does."""
    if max_runs is not None:
        monkeypatch.setattr(patchlist, "MAX_RUNS", max_runs)
    n_linearized = 0
    for seed in range(first, first + n_cases):
        look, restart = ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.3))[seed % 4]
        n_linearized += run_case(seed, look=look, restart=restart)
    # The rest lost a target or a row, which is part of the comparison.
    assert n_linearized > n_cases // 2


@pytest.mark.parametrize("portion", [1, 3])
def test_long_arrays(monkeypatch, portion):
    """What is worked on in portions gives what it gives in one piece."""
    monkeypatch.setattr(decode, "_PORTION", portion)
    for seed in range(100):
        run_case(2 * 10**6 + seed, look=0.3, restart=0.1)


def test_linearize_after_each():
    """Edits mean what they would mean if the list were linearized after each one."""
    for seed in range(150):
        run_case(10**6 + seed, look=0.0, restart=1.0)
