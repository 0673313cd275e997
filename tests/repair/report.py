"""Repair all objects of a folder, and count: ``python tests/repair/report.py [FOLDER]``.

Needs root. ``--verify S`` runs each mended program against what it was for so many seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.repair import Limits, Order, Repaired, repair
from bpfpatch.repair.check import check, is_fired
from support.inputs.production import Production, folder, production_objects


@dataclass
class Tally:
    """What is counted over all objects."""

    n_refused: int = 0
    n_repaired: int = 0
    growth: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    n_mendings: int = 0
    n_first_order: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    n_different: int = 0


def one(found: Production, tally: Tally, limits: Limits, verify: float) -> None:
    """Repair one object, print its row, and count it."""
    name = found.path.name
    start = time.monotonic()
    try:
        obj = ElfObject.read(str(found.path))
        done = repair(obj, name=name, prog_type=found.type, limits=limits)
    except BpfPatchError as error:
        print(f"{name:58} not opened: {error}")
        return
    report = done.report
    seconds = time.monotonic() - start
    if report.is_whole and not report.mendings:
        print(f"{name:58} loads")
        return
    tally.n_refused += 1
    tally.n_repaired += report.is_whole
    tally.seconds.append(seconds)
    growth = 100 * (report.insns_after - report.insns_before) / report.insns_before
    tally.growth.append(growth)
    tally.n_mendings += len(report.mendings)
    tally.n_first_order += report.n_first_order
    tally.kinds.update(
        f"{mending.kind} ({mending.shown_by or 'guard'})" for mending in report.mendings
    )
    left = [f"{name}: {one.name}: {one.reason}" for one in report.programs if not one.is_loaded]
    tally.reasons += left
    n_guards = sum(mending.order is Order.GUARD for mending in report.mendings)
    word = "repaired" if report.is_whole else f"{len(left)} left"
    print(
        f"{name:58} {word:9} {len(report.mendings):3} mendings, {n_guards} guards, "
        f"{growth:+.2f} %, {seconds:.1f} s" + _verified(obj, done, found, verify, tally)
    )


def _verified(
    obj: ElfObject, done: Repaired, found: Production, seconds: float, tally: Tally
) -> str:
    if not seconds or not done.report.is_whole:
        return ""
    verdicts = list(check(obj, done, found.type, seconds))
    different = [one for one in verdicts if one.differs and not is_fired(one)]
    tally.n_different += len(different)
    checked = sum(one.is_checked for one in verdicts)
    return f", {checked} of {len(verdicts)} programs run, {len(different)} different"


def main() -> int:
    """Repair, print a row an object, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=folder())
    parser.add_argument("--verify", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    tally = Tally()
    for found in production_objects(given.folder):
        one(found, tally, Limits(seconds=given.seconds), given.verify)
    if not tally.n_refused:
        print("no object is refused")
        return 0
    print()
    share = 100 * tally.n_repaired / tally.n_refused
    print(f"{tally.n_repaired} of {tally.n_refused} refused objects load ({share:.1f} %)")
    print(
        f"{tally.n_first_order} of {tally.n_mendings} mendings change nothing; growth "
        f"{statistics.median(tally.growth):.2f} % and {statistics.median(tally.seconds):.1f} s "
        "in the median"
    )
    for kind, count in tally.kinds.most_common():
        print(f"  {count:4} {kind}")
    for reason in tally.reasons:
        print(f"left: {reason}")
    return int(tally.n_different > 0)


if __name__ == "__main__":
    sys.exit(main())
