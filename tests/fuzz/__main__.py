"""``python tests/fuzz [--cases N] [--first K]``: mutated inputs through every reader."""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.generators.fuzzing import Seed, run_case, seeds

MEMORY = 4 << 30
_SEEDS: list[Seed] = []


def _start() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _SEEDS.extend(seeds())


def _case(number: int) -> str | None:
    return run_case(_SEEDS, number)


def main() -> int:
    """Run the cases in two processes; 0 if each was read or refused."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000, help="how many (200000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.cases)
    began, failures = time.monotonic(), 0
    with multiprocessing.Pool(initializer=_start) as pool:
        for done, wrong in enumerate(pool.imap_unordered(_case, numbers, chunksize=200), 1):
            if wrong is not None:
                failures += 1
                print(wrong, flush=True)
            if done % 10_000 == 0:
                spent = time.monotonic() - began
                print(f"{done} cases, {failures} failures, {spent:.0f} s", file=sys.stderr)
    print(f"{arguments.cases} cases: {failures} failures")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
