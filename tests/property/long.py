"""Property tests at length: ``python tests/property/long.py LAW [--cases N] [--first SEED]``.

A law is tried on many more random cases than the test that quotes it has time for. The first that
does not hold ends the run and is named with its seed; ``--first SEED --cases 1`` repeats it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SHOWN = 20
Found = tuple[Counter[str], list[tuple[int, str]]]
"""What was counted, and the seeds that are wrong, each with why."""


def one_by_one(seeds: range, check: Callable[[int], str | None], counts: Counter[str]) -> Found:
    """Check seeds up to the first of which something is wrong."""
    for seed in seeds:
        try:
            wrong = check(seed)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        counts["cases"] += 1
        if wrong:
            return counts, [(seed, wrong)]
    return counts, []


def model(seeds: range) -> Found:
    """The patch list does what its naive model does, however its edits are merged."""
    from bpfpatch.patch import patchlist
    from support.models.edited import run_case

    counts: Counter[str] = Counter()
    runs = (patchlist.MAX_RUNS, patchlist.MAX_RUNS, 0, 50)

    def check(seed: int) -> None:
        patchlist.MAX_RUNS = runs[seed % len(runs)]
        look, restart = ((0.0, 0.0), (0.3, 0.0), (1.0, 0.0), (0.3, 0.3))[seed // len(runs) % 4]
        counts["linearized"] += run_case(seed, look=look, restart=restart)

    try:
        return one_by_one(seeds, check, counts)
    finally:
        patchlist.MAX_RUNS = runs[0]


def relax(seeds: range) -> Found:
    """Relaxed programs do what they did, and what the naive model of relaxing makes of them."""
    from support.models.farjumps import run_edited, run_relaxed

    counts: Counter[str] = Counter()

    def check(seed: int) -> None:
        counts["far"] += (run_relaxed if seed % 2 else run_edited)(seed)

    return one_by_one(seeds, check, counts)


def crowded(seeds: range) -> Found:
    """Programs under pressure behave and count as before."""
    from support.models.crowding import check_crowded

    return one_by_one(seeds, check_crowded, Counter())


def shrink(seeds: range) -> Found:
    """Shrunk programs do what they did."""
    from support.models.shrinking import check_shrinking

    counts: Counter[str] = Counter()

    def check(seed: int) -> str:
        before, after, wrong = check_shrinking(seed)
        counts.update(before=before, after=after)
        return wrong

    return one_by_one(seeds, check, counts)


def rules(seeds: range) -> Found:
    """What rules of peephole are for, and what is around it, does what it did."""
    from bpfpatch.passes.peephole import builtin_rules
    from support.models.ruled import check_rule

    counts: Counter[str] = Counter()
    all_rules = builtin_rules()

    def check(seed: int) -> str:
        fitted, wrong = check_rule(all_rules[seed % len(all_rules)], seed, with_all=True)
        counts["fitted"] += fitted
        return wrong

    return one_by_one(seeds, check, counts)


def interp(seeds: range) -> Found:
    """The interpreter and the kernel give the same."""
    from support.models.agreement import Agreement

    with Agreement() as agreement:
        counts, wrong = one_by_one(seeds, agreement.check, Counter())
        counts["run"] = agreement.n_run
        return counts, wrong


def values(seeds: range) -> Found:
    """Each rule of the value analysis is sound."""
    from support.models.soundrules import RULES

    def check(seed: int) -> str:
        for name, rule in RULES.items():
            if wrong := rule(random.Random(seed)):
                return f"{name}: {wrong}"
        return ""

    return one_by_one(seeds, check, Counter())


def parity(seeds: range) -> Found:
    """We rewrite as the kernel does."""
    from support.cases.parity import run_seeds
    from support.generators.programs import acceptable_case

    found = run_seeds(seeds, acceptable_case)
    counts = Counter(equal=found.n_equal, by_paths=found.n_by_paths, refused=found.n_refused)
    counts["with_aux"] = found.n_equal + found.n_by_paths
    counts["cases"] = len(seeds)
    return counts, [(seed, "") for seed in found.seeds]


def small_parity(seed: int) -> str:
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


@dataclass(frozen=True, slots=True)
class Law:
    """What is tried.

    Attributes:
        run: tries it on some seeds.
        n_cases: how many, by default.
        first: the first seed, beyond those of the test of the same law.
        said: the summary, a format with what was counted.
        needs_kernel: whether it needs bpf(2).
        explain: shows a wrong seed; all of them are found first, where it is given.
    """

    run: Callable[[range], Found]
    n_cases: int
    first: int
    said: str
    needs_kernel: bool = False
    explain: Callable[[int], str] | None = None


LAWS = {
    "model": Law(
        model,
        100_000,
        5_000,
        "{cases} random programs agree with the model; {linearized} of them could be linearized, "
        "the others lost a target or a row in both",
    ),
    "relax": Law(
        relax, 100_000, 1_000, "{cases} programs did what they did, {far} of them with far jumps"
    ),
    "values": Law(values, 100_000, 10_000, "all rules held on {cases} random cases each"),
    "shrink": Law(
        shrink, 10_000, 1_000, "{cases} programs do what they did, {before} -> {after} slots"
    ),
    "rules": Law(
        rules, 20_000, 1_000, "{cases} programs do what they did; rules fitted {fitted} times"
    ),
    "crowded": Law(crowded, 10_000, 100, "{cases} programs behave and count as before", True),
    "interp": Law(
        interp,
        100_000,
        2_000,
        "{run} random programs of {cases} ran in both and gave the same, the kernel refused "
        "the others",
        True,
    ),
    "parity": Law(
        parity,
        50_000,
        10_000,
        "{with_aux} of {cases} random programs are equal with the kernel's aux, {equal} with our "
        "own, {by_paths} more with our own but for what only the verifier's paths tell; the "
        "kernel refused {refused}",
        True,
        small_parity,
    ),
}


def main() -> int:
    """Try a law on all cases, side by side, with progress on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("law", choices=LAWS)
    parser.add_argument("--cases", type=int, help="how many (as many as make runs)")
    parser.add_argument("--first", type=int, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    options = parser.parse_args()
    law = LAWS[options.law]
    if law.needs_kernel:
        from bpfpatch import kernel

        if (reason := kernel.available()) is not None:
            print(f"skipped: {reason}")
            return 0
    n_cases = law.n_cases if options.cases is None else options.cases
    first = law.first if options.first is None else options.first
    began = time.monotonic()
    counts, wrong = run_all(law, range(first, first + n_cases), options.jobs)
    print(file=sys.stderr)
    for seed, why in sorted(wrong)[:SHOWN]:
        print(f"seed {seed}: {why or (law.explain and law.explain(seed))}")
    print(f"{law.said.format_map(counts)}; {len(wrong)} wrong; {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def run_all(law: Law, seeds: range, n_jobs: int) -> Found:
    """Try a law on all seeds, or up to the first that is wrong."""
    size = max(1, min(250, len(seeds) // (4 * n_jobs)))
    chunks = [seeds[at : at + size] for at in range(0, len(seeds), size)]
    counts: Counter[str] = Counter()
    wrong: list[tuple[int, str]] = []
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(n_jobs) as pool:
        for some, bad in pool.imap_unordered(law.run, chunks):
            counts += some
            wrong += bad
            rate = counts["cases"] / (time.monotonic() - began)
            status = f"{counts['cases']} of {len(seeds)}, {rate:.0f} a second, {len(wrong)} wrong"
            print(f"\r{status}", end="", file=sys.stderr)
            if wrong and law.explain is None:
                break
    return counts, wrong


if __name__ == "__main__":
    sys.exit(main())
