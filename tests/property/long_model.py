"""The long run of the model test: ``python tests/property/long_model.py --cases 100000``.

It stops at the first difference and names its seed; ``--first SEED --cases 1`` repeats that one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

CHUNK = 500
RUNS = (None, None, 0, 50)  # most runs that are merged: the default twice, none, many


def run_chunk(seeds: range) -> tuple[int, int, str]:
    """Run some cases; how many there were, how many could be linearized, and what differed."""
    from bpfpatch.patch import patchlist
    from support.models.edited import run_case

    default = patchlist.MAX_RUNS
    n_linearized = 0
    for seed in seeds:
        max_runs = RUNS[seed % len(RUNS)]
        patchlist.MAX_RUNS = default if max_runs is None else max_runs
        look, restart = ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.3))[seed // len(RUNS) % 4]
        try:
            n_linearized += run_case(seed, look=look, restart=restart)
        except Exception as error:
            return len(seeds), n_linearized, f"seed {seed}: {type(error).__name__}: {error}"
    return len(seeds), n_linearized, ""


def main() -> int:
    """Run all cases in parallel, with progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=5_000, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    behind = options.first + options.cases
    chunks = [range(s, min(s + CHUNK, behind)) for s in range(options.first, behind, CHUNK)]
    began = time.monotonic()
    n_done = n_linearized = 0
    with multiprocessing.Pool(options.jobs) as pool:
        for n_cases, n_ok, wrong in pool.imap_unordered(run_chunk, chunks):
            if wrong:
                print(f"\n{wrong}", file=sys.stderr)
                return 1
            n_done, n_linearized = n_done + n_cases, n_linearized + n_ok
            rate = n_done / (time.monotonic() - began)
            print(f"\r{n_done} of {options.cases}, {rate:.0f} a second", end="", file=sys.stderr)
    print(file=sys.stderr)
    print(
        f"{n_done} random programs agree with the model; {n_linearized} of them could be "
        f"linearized, the others lost a target or a row in both; {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
