"""Relaxing against its naive model: random programs, and a field that holds next to nothing.

``python tests/property/test_relax_model.py --cases 100000`` runs as many more as one asks for.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.models.farjumps import run_edited, run_relaxed


def test_relaxed_programs_do_what_they_did():
    """Each jump arrives where it did, all distances fit, and the model's program does the same."""
    assert sum(run_relaxed(seed) for seed in range(40)) > 12


def test_relaxing_an_edited_list():
    """Relaxing is the last step: edits first, and then as if they had never been edits."""
    assert sum(run_edited(seed) for seed in range(300)) > 60


def main() -> int:
    """Run many cases; the first that differs is named and ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    options = parser.parse_args()
    began, n_far = time.monotonic(), 0
    for seed in range(options.first, options.first + options.cases):
        n_far += (run_relaxed if seed % 2 else run_edited)(seed)
    print(
        f"{options.cases} programs did what they did before, {n_far} of them with far jumps; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
