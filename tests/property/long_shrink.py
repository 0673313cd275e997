"""Shrinking of random programs, at length: ``python tests/property/long_shrink.py --cases 10000``.

It stops at the first difference and names its seed; ``--first SEED --cases 1`` repeats that one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def run(seed: int) -> tuple[int, int, int, str]:
    """Run one case: its seed, instructions before and after, and what is wrong."""
    from support.models.shrinking import check_shrinking

    try:
        return seed, *check_shrinking(seed)
    except Exception as error:
        return seed, 0, 0, f"{type(error).__name__}: {error}"


def main() -> int:
    """Run all cases in parallel, with progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.cases)
    began, n_before, n_after = time.monotonic(), 0, 0
    with multiprocessing.Pool(options.jobs) as pool:
        for n_done, (seed, before, after, wrong) in enumerate(
            pool.imap_unordered(run, seeds, 20), 1
        ):
            if wrong:
                print(f"\nseed {seed}: {wrong}", file=sys.stderr)
                return 1
            n_before, n_after = n_before + before, n_after + after
            rate = n_done / (time.monotonic() - began)
            print(f"\r{n_done} of {options.cases}, {rate:.0f} a second", end="", file=sys.stderr)
    print(f"\n{options.cases} programs do the same; {n_before} -> {n_after} slots", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
