"""What shrinking saves, as Markdown: ``python tests/shrink_table.py [--corpus NAME] [--save]``.

Every object at hand: slots before and after, by step; instructions that the verifier looked at;
how long a test run takes, where programs take packets; whether what was run before and after
differs. Loading needs root. ``--save`` puts the table into docs/passes/shrink.md. Debian's libxdp1
and libbpf-tools give most of the rows, ``BPFPATCH_OBJECTS`` or a folder beside the project others.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpfpatch import kernel
from bpfpatch.bpf.loaded import LoadedProgram
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.loader.guess import guess_types
from bpfpatch.loader.object import KernelObject
from bpfpatch.passes.shrinking.shrink import STEPS
from bpfpatch.shrink import Shrunk, shrink_object
from bpfpatch.verify import Bounds, verify_objects
from support.inputs.bpfobjects import fixture_objects, libbpf_tools_objects, xdp_tools_objects

OBJECTS = "BPFPATCH_OBJECTS"
BESIDE = Path(__file__).parents[2] / "shared" / "objects"
PAGE = Path(__file__).parents[1] / "docs" / "passes" / "shrink.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
CLASSIFIERS = ("bpf_overlay", "bpf_lxc", "bpf_wireguard", "bpf_host")
"""Objects whose sections do not tell that they are classifiers."""
PACKET = bytes(range(64))
REPEAT, TRIES = 2_000, 3


@dataclass
class Row:
    """One object.

    Attributes:
        name: the file's.
        slots: before and after.
        safe: slots after safe steps only.
        verified: instructions that the verifier looked at, before and after, of what loads.
        nanoseconds: of test runs, before and after, summed over programs that can be run.
        loads: programs that load before, and after.
        differs: programs that behave in another way.
        compared: programs that were run before and after.
        steps: slots by step.
        undone: functions in which something was left out.
    """

    name: str
    slots: tuple[int, int]
    safe: int
    verified: tuple[int, int] = (0, 0)
    nanoseconds: tuple[float, float] = (0.0, 0.0)
    loads: tuple[int, int] = (0, 0)
    differs: int = 0
    compared: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    undone: int = 0

    @property
    def saved(self) -> float:
        """The part of the slots that is gone, in percent."""
        return 100 * (1 - self.slots[1] / self.slots[0])


def corpora() -> dict[str, list[tuple[str, bytes]]]:
    """Objects, by where they are from."""
    folder = Path(os.environ.get(OBJECTS) or BESIDE)
    fixtures = [(name, data) for name, data in fixture_objects() if not name.startswith("asm_")]
    return {
        "libxdp1": xdp_tools_objects(),
        "libbpf-tools": libbpf_tools_objects(),
        "fixtures": [one for one in fixtures if ".el." in one[0] and "-19." in one[0]],
        "production": [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.o"))],
    }


def rows(objects: list[tuple[str, bytes]], seconds: float) -> Iterator[Row]:
    """Shrink objects; those that cannot be rewritten are left out."""
    for name, data in objects:
        began = time.monotonic()
        kind = ProgType.SCHED_CLS if any(one in name for one in CLASSIFIERS) else None
        try:
            obj = ElfObject.parse(data)
            if not len(obj.code):
                continue
            done = shrink_object(obj, name=name, prog_type=kind)
            safe = shrink_object(obj, asks_kernel=False).report.slots_after
        except BpfPatchError as error:
            print(f"{name}: left out: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        row = _row(name, done, safe)
        _compare(row, obj, done, seconds)
        if kernel.available() is None:
            row.nanoseconds = _times(obj, done, kind)
        spent = time.monotonic() - began
        print(f"{name}: {row.saved:.1f} %, {row.differs} differ, {spent:.0f} s", file=sys.stderr)
        yield row


def _row(name: str, done: Shrunk, safe: int) -> Row:
    report = done.report
    both = [one for one in report.programs if one.verified_before and one.verified_after]
    return Row(
        name,
        (report.slots_before, report.slots_after),
        safe,
        verified=(
            sum(one.verified_before or 0 for one in both),
            sum(one.verified_after or 0 for one in both),
        ),
        loads=(
            sum(one.verified_before is not None for one in report.programs),
            sum(one.verified_after is not None for one in report.programs),
        ),
        steps=Counter(report.steps),
        undone=sum(bool(one.undone) for one in report.functions),
    )


def _compare(row: Row, before: ElfObject, done: Shrunk, seconds: float) -> None:
    """Run all programs before and after."""
    if not seconds or not before.programs:
        return
    try:
        for verdict in verify_objects(
            before, done.obj, provenance=done.result, bounds=Bounds(seconds=seconds)
        ):
            row.compared += not verdict.is_lost
            row.differs += verdict.differs
            if verdict.differs:
                print(f"{row.name}: {verdict}", file=sys.stderr)
    except BpfPatchError as error:
        print(f"{row.name}: not compared: {str(error).splitlines()[0]}", file=sys.stderr)


def _times(before: ElfObject, done: Shrunk, kind: ProgType | None) -> tuple[float, float]:
    """Nanoseconds of a test run before and after, for the programs that take packets."""
    out = [0.0, 0.0]
    try:
        opened = KernelObject(before, "shrink", None)
    except BpfPatchError:
        return 0.0, 0.0
    try:
        guesses = guess_types(before, kind)
        for name in opened.autoloaded():
            guess = guesses[name]
            if guess.type not in (ProgType.XDP, ProgType.SCHED_CLS, ProgType.SOCKET_FILTER):
                continue
            found = []
            for obj in (before, done.obj):
                try:
                    linked = obj.link(name)
                    with opened.load(linked, prog_type=guess.type) as loaded:
                        found.append(_time(loaded))
                except BpfPatchError:
                    break
            if len(found) == 2:
                out = [out[0] + found[0], out[1] + found[1]]
    finally:
        opened.close()
    return out[0], out[1]


def _time(loaded: LoadedProgram) -> float:
    return min(loaded.test_run(PACKET, repeat=REPEAT).duration_ns for _ in range(TRIES))


def table(name: str, found: list[Row]) -> list[str]:
    """A table of one corpus, and its means."""
    head = ("object", "slots", "now", "fewer", "safe", *STEPS, "verified", "now", "test run", "now")
    lines = [f"### {name}", "", f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for row in found:
        steps = [str(row.steps[step] or "") for step in STEPS]
        verified = [str(one or "") for one in row.verified]
        times = [f"{one:.0f} ns" if one else "" for one in row.nanoseconds]
        safe = 100 * (1 - row.safe / row.slots[0])
        cells = [
            row.name, str(row.slots[0]), str(row.slots[1]), f"{row.saved:.1f} %", f"{safe:.1f} %",
            *steps, *verified, *times,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", summary(found), ""]


def summary(found: list[Row]) -> str:
    """What holds for all of them, in a few sentences."""
    mean = statistics.fmean(row.saved for row in found)
    total = [sum(row.slots[at] for row in found) for at in (0, 1)]
    verified = [sum(row.verified[at] for row in found) for at in (0, 1)]
    loads = [sum(row.loads[at] for row in found) for at in (0, 1)]
    both = [row for row in found if all(row.nanoseconds)]
    text = (
        f"{len(found)} objects: {mean:.1f} % fewer slots on the mean, {total[0]} -> {total[1]} in "
        f"all. {loads[0]} programs loaded, {loads[1]} do now"
    )
    if verified[0]:
        part = 100 * (1 - verified[1] / verified[0])
        text += f"; the verifier looks at {part:.1f} % fewer instructions"
    if both:
        ratio = statistics.geometric_mean(row.nanoseconds[1] / row.nanoseconds[0] for row in both)
        text += f"; test runs of {len(both)} objects take {ratio:.2f} times as long"
    text += (
        f". Of {sum(row.compared for row in found)} programs run before and after, "
        f"{sum(row.differs for row in found)} differ; in {sum(row.undone for row in found)} "
        "functions something was left out."
    )
    return text


def save(lines: list[str], names: list[str]) -> None:
    """Put tables into the page, in place of those of the same corpora."""
    text = PAGE.read_text()
    before, _, rest = text.partition(f"{BEGIN}\n")
    inside, _, after = rest.partition(END)
    kept = [
        part
        for part in re.split(r"(?=^### )", inside, flags=re.M)
        if part.strip() and part.split("\n", 1)[0].removeprefix("### ") not in names
    ]
    body = "".join(kept) + "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{body}{END}{after}")


def main() -> int:
    """Print the tables; 1 where a program differs or does not load any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", choices=corpora(), help="one of them; by default all")
    parser.add_argument("--seconds", type=float, default=0.5, help="to compare a program (0.5)")
    parser.add_argument("--save", action="store_true", help="put the tables into the page")
    options = parser.parse_args()
    lines: list[str] = []
    names: list[str] = []
    wrong = 0
    for name, objects in corpora().items():
        if options.corpus not in (None, name):
            continue
        found = list(rows(objects, options.seconds))
        if not found:
            continue
        names.append(name)
        lines += table(name, found)
        wrong += sum(row.differs + row.loads[0] - row.loads[1] for row in found)
    print("\n".join(lines))
    if options.save:
        save(lines, names)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
