"""Interpreter against kernel, at length: ``python tests/property/long_interp.py --cases 100000``.

It stops at the first difference and names its seed; ``--first SEED --cases 1`` repeats that one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

CHUNK = 250


def run_chunk(seeds: range) -> tuple[int, int, str]:
    """Run some cases; how many there were, how many the kernel took, and what differed."""
    from support.models.agreement import Agreement

    with Agreement() as agreement:
        for seed in seeds:
            try:
                wrong = agreement.check(seed)
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                return len(seeds), agreement.n_run, f"seed {seed}: {wrong}"
        return len(seeds), agreement.n_run, ""


def main() -> int:
    """Run all cases in parallel, with progress on stderr."""
    from bpfpatch import kernel

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=2_000, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    reason = kernel.available()
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    behind = options.first + options.cases
    chunks = [range(s, min(s + CHUNK, behind)) for s in range(options.first, behind, CHUNK)]
    began = time.monotonic()
    n_done = n_run = 0
    with multiprocessing.Pool(options.jobs) as pool:
        for n_cases, n_ok, wrong in pool.imap_unordered(run_chunk, chunks):
            if wrong:
                print(f"\n{wrong}", file=sys.stderr)
                return 1
            n_done, n_run = n_done + n_cases, n_run + n_ok
            rate = n_done / (time.monotonic() - began)
            print(f"\r{n_done} of {options.cases}, {rate:.0f} a second", end="", file=sys.stderr)
    print(file=sys.stderr)
    print(
        f"{n_run} random programs of {n_done} ran in both and gave the same, the kernel refused "
        f"the others; {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
