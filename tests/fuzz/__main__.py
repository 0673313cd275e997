"""``python tests/fuzz [--cases N] [--first K]``: mutated inputs through every command.

Each case runs in a process whose memory is limited. With ``--readers`` the cases are those of the
parsers alone, of which many more fit into a second; with ``--kernel`` they are loaded (root).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bpfpatch import kernel
from support.generators import commandfuzz, fuzzing

MEMORY = 2 << 30
_SEEDS: list[Any] = []


def _start(seeds: Callable[[], list[Any]]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _SEEDS.extend(seeds())


def _reader_case(number: int) -> str | None:
    return fuzzing.run_case(_SEEDS, number)


def _command_case(number: int) -> str | None:
    return commandfuzz.run_case(_SEEDS, number)


def main() -> int:
    """Run the cases in two processes; 0 if each was done or refused."""
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many (20000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    parser.add_argument("--readers", action="store_true", help="the parsers alone")
    parser.add_argument("--kernel", action="store_true", help="what loads objects")
    parser.add_argument("--processes", type=int, default=2, help="at a time (2)")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.cases)
    case = _reader_case if given.readers else _command_case
    seeds = fuzzing.seeds if given.readers else commandfuzz.seeds
    if given.kernel:
        seeds = commandfuzz.kernel_seeds
        if (reason := kernel.available()) is not None:
            print(f"skipped: {reason}")
            return 0
    began, failures = time.monotonic(), 0
    with multiprocessing.Pool(given.processes, _start, (seeds,)) as pool:
        for done, wrong in enumerate(pool.imap_unordered(case, numbers, chunksize=50), 1):
            if wrong is not None:
                failures += 1
                print(wrong, flush=True)
            if done % 1_000 == 0:
                spent = time.monotonic() - began
                print(f"{done} cases, {failures} failures, {spent:.0f} s", file=sys.stderr)
    print(f"{given.cases} cases: {failures} failures")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
