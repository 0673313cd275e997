"""What the cover pass refuses, and what counting costs: ``python tests/coverage_table.py``.

Prints two tables in Markdown. The first one needs nothing; whether what loaded still loads, and
durations, need root. Debian's libxdp1 and libbpf-tools give most of the rows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bpfpatch import kernel, runs
from bpfpatch.coverage import cover_map
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.passes import Pipeline
from support.inputs.bpfobjects import (
    FIXTURES,
    fixture_objects,
    libbpf_tools_objects,
    xdp_tools_objects,
)
from support.machine import tools
from support.machine.bpfloads import loaded_bytes

WAYS = [
    f"edges={edges},count={count}"
    for count in ("plain", "atomic", "percpu")
    for edges in ("false", "true")
]
COSTS = {
    "block": "count=plain",
    "block, no tree": "count=plain,tree=false",
    "edge": "edges=true,count=plain",
    "edge, no tree": "edges=true,count=plain,tree=false",
    "edge, atomic": "edges=true",
    "edge, percpu": "edges=true,count=percpu",
}
MEASURED = (
    "xdp_balancer.clang-19.v3.el.g.o",
    "xdp_parse.clang-19.v3.el.g.o",
    "tc_rewrite.clang-19.v3.el.g.o",
    "xdp_count.clang-19.v3.el.g.o",
)
REPEAT = 20_000
ROUNDS = 7


def corpora() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Objects, by where they are from."""
    yield "libxdp1", xdp_tools_objects()
    yield "libbpf-tools", libbpf_tools_objects()
    yield "fixtures", fixture_objects()


def loads(data: bytes, folder: Path) -> bool:
    """Whether libbpf loads an object here."""
    try:
        with loaded_bytes(data, folder):
            return True
    except tools.BpftoolError:
        return False


def refusals() -> Counter[str]:
    """Print what becomes of each object in each way to count; gives the reasons."""
    reasons: Counter[str] = Counter()
    print("| objects | way | instrumented | refused | of those that load: still load | fail |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for corpus, objects in corpora():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            loading = {file for file, data in objects if data[5] == 1 and loads(data, folder)}
            for way in WAYS:
                seen: Counter[str] = Counter()
                for file, data in objects:
                    seen.update(_becomes(file, data, way, folder, reasons, file in loading))
                row = [seen[key] for key in ("done", "refused", "loads", "fails")]
                print(f"| {corpus} | `{way}` | {' | '.join(map(str, row))} |", flush=True)
    return reasons


def _becomes(
    file: str, data: bytes, way: str, folder: Path, reasons: Counter[str], is_loading: bool
) -> list[str]:
    try:
        made = Pipeline.parse(f"cover{{{way}}}").run_object(ElfObject.parse(data))[0].to_bytes()
    except BpfPatchError as error:
        what = str(error)
        reasons[what[what.find(" ", 9) :] if what.startswith("function ") else what] += 1
        return ["refused", *(["refused but loads"] if is_loading else [])]
    if not is_loading:
        return ["done"]
    return ["done", "loads" if loads(made, folder) else "fails"]


@dataclass(frozen=True)
class Cost:
    """One program: its length, instructions that packets take, and nanoseconds of one run."""

    n_insns: int
    n_ran: int
    nanoseconds: float


def costs() -> None:
    """Print what counting adds to programs, as ratios to the original."""
    print("| program | counting | counters | instructions | executed | TEST_RUN |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    packets = runs.read_pcap((FIXTURES / "packets.pcap").read_bytes()).frames
    inputs = [runs.Input(packet=one.data) for one in packets if len(one.data) > 33]
    for file in MEASURED:
        obj = ElfObject.read(FIXTURES / "obj" / file)
        name = obj.programs[0].name
        before = cost(obj, name, inputs)
        for label, way in COSTS.items():
            try:
                made = Pipeline.parse(f"cover{{{way}}}").run_object(obj)[0]
            except BpfPatchError as error:
                print(f"| {name} | {label} | refused: {error} | | | |")
                continue
            after = cost(made, name, inputs)
            print(
                f"| {name} | {label} | {cover_map(made).n_counters} "
                f"| {after.n_insns / before.n_insns:.2f} | {after.n_ran / before.n_ran:.2f} "
                f"| {after.nanoseconds / before.nanoseconds:.2f} |",
                flush=True,
            )


def cost(obj: ElfObject, name: str, inputs: list[runs.Input]) -> Cost:
    """What one program costs on all inputs together."""
    linked = obj.link(name)
    with runs.open_runner(linked, "interp", obj=obj) as runner:
        outcomes = [runner.run(one, with_maps=False) for one in inputs]
    spent = 0.0
    with kernel.open_object(obj, [name]) as opened:
        program = opened.programs[name]
        for one in inputs[:6]:
            assert one.packet is not None
            spent += statistics.median(
                program.test_run(one.packet, repeat=REPEAT).duration_ns for _ in range(ROUNDS)
            )
    return Cost(len(linked.program), sum(one.n_insns or 0 for one in outcomes), max(spent, 1))


if __name__ == "__main__":
    why = refusals()
    print()
    for what, times in why.most_common():
        print(f"- {times}: {what}")
    print()
    costs()
