"""What passes refuse that need places, and what counting costs: ``make cover-table``.

Prints tables in Markdown: of our own objects, those of Debian's libxdp1 and libbpf-tools, and those
of ``BPFPATCH_OBJECTS``, else ``../shared/objects``. Whether what loaded still loads, and durations,
need root; ``--costs`` measures what counting costs, too, ``--trace`` a trace at each function.
"""

from __future__ import annotations

import statistics
import sys
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
    production_objects,
    xdp_tools_objects,
)
from support.models.refusals import PASSES, TRACE, Outcome, try_pass, verified

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
    yield "production", production_objects()


def refusals(passes: tuple[str, ...]) -> None:
    """Print what becomes of each corpus in each pass, then why."""
    print(
        "| objects | pass | accepted | refused | left out | of blocks | load before | and after "
        "| processed |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    reasons = []
    for corpus, objects in corpora():
        known = [(name, obj, loading(obj)) for name, obj in _parsed(objects)]
        for text in passes:
            outcome = Outcome()
            for name, obj, programs in known:
                try_pass(outcome, name, obj, text, programs)
            ratio = f"{outcome.after / outcome.before:.2f}" if outcome.before else ""
            row = (
                outcome.accepted, len(outcome.refused), outcome.left, outcome.blocks or "",
                outcome.loads + len(outcome.fails), outcome.loads, ratio,
            )  # fmt: skip
            print(f"| {corpus} | `{text}` | {' | '.join(map(str, row))} |", flush=True)
            reasons += [(text, *row) for row in {**outcome.refused, **outcome.fails}.items()]
    print()
    for text, where, why in reasons:
        print(f"- `{text}` {where}: {why.splitlines()[0][:200]}")


def _parsed(objects: list[tuple[str, bytes]]) -> Iterator[tuple[str, ElfObject]]:
    for name, data in objects:
        try:
            yield name, ElfObject.parse(data)
        except BpfPatchError as error:
            print(f"{name}: {error}", file=sys.stderr)


def loading(obj: ElfObject) -> dict[str, int]:
    """The programs that load, and how many instructions the verifier processes."""
    if obj.byteorder != sys.byteorder or kernel.available() is not None:
        return {}
    found = verified(obj, [info.name for info in obj.programs])
    return {name: count for name, count in found.items() if isinstance(count, int)}


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
    refusals((*PASSES, TRACE) if "--trace" in sys.argv else PASSES)
    if "--costs" in sys.argv:
        print()
        costs()
