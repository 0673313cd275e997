"""The long run against the kernel: ``python tests/property/long_parity.py --cases 50000``.

Each program that differs is shown with its seed, made as small as it gets.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

CHUNK = 100
SHOWN = 20


def run_chunk(seeds: range) -> tuple[int, int, int, list[int]]:
    """Run some programs; how many were equal, or but for paths, or refused; which seeds differ."""
    from support.cases.parity import run_seeds
    from support.generators.programs import acceptable_case

    found = run_seeds(seeds, acceptable_case)
    return found.n_equal, found.n_by_paths, found.n_refused, found.seeds


def small(seed: int) -> str:
    """The program of a seed that differs, as small as it gets, and how."""
    from support.cases.parity import Outcome, compare_case, why
    from support.cases.paritycase import ParityCase
    from support.generators.programs import acceptable_case
    from support.generators.shrink import shrink

    def kinds(outcome: Outcome) -> list[Any]:
        found = outcome.by_source.values()
        return [
            type(one) if isinstance(one, Exception) else bool(why(one)) and one.differences[0].part
            for one in found
        ]

    case = acceptable_case(seed)
    wanted = kinds(compare_case(case))

    def still(other: ParityCase) -> bool:
        return kinds(compare_case(other)) == wanted

    return str(compare_case(shrink(case, still)))


def main() -> int:
    """Run all programs, in parallel, with progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=10_000, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    behind = options.first + options.cases
    chunks = [range(s, min(s + CHUNK, behind)) for s in range(options.first, behind, CHUNK)]
    began = time.monotonic()
    n_equal = n_by_paths = n_refused = n_done = 0
    seeds: list[int] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for equal, by_paths, refused, different in pool.imap_unordered(run_chunk, chunks):
            n_equal, n_refused = n_equal + equal, n_refused + refused
            n_by_paths += by_paths
            seeds += different
            n_done += equal + by_paths + refused + len(different)
            rate = n_done / (time.monotonic() - began)
            status = f"{n_done} of {options.cases}, {rate:.0f} a second, {len(seeds)} differ"
            names = f", seeds {different}" if different else ""
            print(f"\r{status}{names}", end="\n" if different else "", file=sys.stderr)
    print(file=sys.stderr)
    for seed in sorted(seeds)[:SHOWN]:
        print(f"\nseed {seed}:\n{small(seed)}")
    print(
        f"{n_equal + n_by_paths} of {n_equal + n_by_paths + len(seeds)} random programs are equal "
        f"with the kernel's aux, {n_equal} with our own, {n_by_paths} more with our own but for "
        f"what only the verifier's paths tell; the kernel refused {n_refused}; "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if seeds else 0


if __name__ == "__main__":
    sys.exit(main())
