"""Relaxing against its naive model: random programs, and a field that holds next to nothing.

`long.py relax` beside this file runs as many more as one asks for.
"""

from __future__ import annotations

from support.models.farjumps import run_edited, run_relaxed


def test_relaxed_programs_do_what_they_did():
    """Each jump arrives where it did, all distances fit, and the model's program does the same."""
    assert sum(run_relaxed(seed) for seed in range(40)) > 12


def test_relaxing_an_edited_list():
    """Relaxing is the last step: edits first, and then as if they had never been edits."""
    assert sum(run_edited(seed) for seed in range(300)) > 60
