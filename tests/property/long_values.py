"""The value analysis' domain, at length: ``python tests/property/long_values.py --cases 100000``.

Each rule is tried on so many random cases. It stops at the first that does not hold and names its
seed; ``--rule NAME --first SEED --cases 1`` repeats that one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

CHUNK = 2000


def run_chunk(job: tuple[str, range]) -> str:
    """Try one rule on some seeds; what did not hold."""
    from support.models.soundrules import RULES

    name, seeds = job
    for seed in seeds:
        wrong = RULES[name](random.Random(seed))
        if wrong:
            return f"{name}, seed {seed}: {wrong}"
    return ""


def main() -> int:
    """Try all rules in parallel."""
    from support.models.soundrules import RULES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="for each rule")
    parser.add_argument("--first", type=int, default=10_000, help="the first seed")
    parser.add_argument("--rule", choices=sorted(RULES), action="append", help="only this one")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    after = options.first + options.cases
    names = options.rule or sorted(RULES)
    jobs = [
        (name, range(seed, min(seed + CHUNK, after)))
        for name in names
        for seed in range(options.first, after, CHUNK)
    ]
    began = time.monotonic()
    with multiprocessing.Pool(options.jobs) as pool:
        for number, wrong in enumerate(pool.imap_unordered(run_chunk, jobs), 1):
            if wrong:
                print(f"\n{wrong}", file=sys.stderr)
                return 1
            print(f"\r{number} of {len(jobs)} portions", end="", file=sys.stderr)
    print(file=sys.stderr)
    took = time.monotonic() - began
    print(f"{len(names)} rules held on {options.cases} random cases each; {took:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
