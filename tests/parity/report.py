"""Parity with the running kernel, counted: ``python tests/parity/report.py``.

Needs root, and for all rows Debian's libxdp1 and libbpf-tools. Programs that the kernel refuses
to load are left out, and counted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bpfpatch.elf import ElfObject
from bpfpatch.facts import ProgFlag
from bpfpatch.kernel import VerifierError
from bpfpatch.linux.parity.compare import Parity
from bpfpatch.linux.parity.sweep import SOURCES, Status, SweepRow, SweepTally, compare_object
from support.cases.parity import compare_case, why
from support.cases.paritycase import ParityCase, read_cases
from support.generators.programs import acceptable_case
from support.inputs.bpfobjects import fixture_objects, libbpf_tools_objects, xdp_tools_objects

CASES = Path(__file__).parent / "cases"


def objects(found: list[tuple[str, bytes]]) -> Iterator[SweepRow]:
    """The programs of objects of this machine's byte order."""
    mine = 1 if sys.byteorder == "little" else 2
    for name, data in found:
        if data[5] == mine:
            yield from compare_object(ElfObject.parse(data), name)


def cases(found: Iterable[ParityCase]) -> Iterator[SweepRow]:
    """The programs of case files, or random ones."""
    for case in found:
        try:
            outcome = compare_case(case)
        except VerifierError as error:
            for source in SOURCES:
                yield SweepRow(case.name, "", source, Status.REFUSED, "VerifierError", str(error))
            continue
        for source, one in outcome.by_source.items():
            text = why(one)
            status = Status.DIFFERENT if text else Status.EQUAL
            cause = one.cause if isinstance(one, Parity) else f"{type(one).__name__}: {one}"
            if text and source == "offline" and outcome.is_by_paths:
                cause = "what only the verifier's paths tell"
            yield SweepRow(case.name, "", source, status, cause, text)


def file_cases() -> Iterator[ParityCase]:
    """All programs of the case files."""
    for path in sorted(CASES.glob("*.txt")):
        yield from read_cases(path)


def random_cases(n: int, *, has_flag: bool) -> Iterator[ParityCase]:
    """Random programs, with or without random upper halves."""
    for case in map(acceptable_case, range(n)):
        if bool(case.flags & ProgFlag.TEST_RND_HI32) == has_flag:
            yield case


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=2000, metavar="N", help="random programs")
    parser.add_argument("--list", action="store_true", help="name each program that differs")
    options = parser.parse_args()
    groups = {
        "fixtures": lambda: objects(fixture_objects()),
        "cases": lambda: cases(file_cases()),
        "random programs": lambda: cases(random_cases(options.random, has_flag=False)),
        "the same with TEST_RND_HI32": lambda: cases(random_cases(options.random, has_flag=True)),
        "libxdp1": lambda: objects(xdp_tools_objects()),
        "libbpf-tools": lambda: objects(libbpf_tools_objects()),
    }
    found: dict[str, list[SweepRow]] = {}
    for name, rows in groups.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = list(rows())
    print("| programs | aux | equal | of | % | not loaded here |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, rows in found.items():
        for source in SOURCES:
            tally = SweepTally.of(rows, source)
            share = f"{100 * tally.equal / tally.total:.1f}" if tally.total else "-"
            print(
                f"| {name} | {source} | {tally.equal} | {tally.total} | {share} |",
                tally.refused,
                "|",
            )
    print("\n| programs | aux | cause | count |")
    print("| --- | --- | --- | --- |")
    for name, rows in found.items():
        for source in SOURCES:
            for cause, count in SweepTally.of(rows, source).causes:
                print(f"| {name} | {source} | {cause} | {count} |")
    if options.list:
        for rows in found.values():
            for row in rows:
                if row.status in (Status.DIFFERENT, Status.FAILED):
                    print(f"\n{row.object} {row.program} ({row.source}): {row.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
