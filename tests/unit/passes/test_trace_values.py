"""What a traced object tells when it is run: the values that registers have in the original."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from bpfpatch.elf import ElfObject, ProgramInfo
from bpfpatch.errors import BpfPatchError, UnsupportedError
from bpfpatch.interp import Machine, MachineOptions, Skb, Xdp
from bpfpatch.interp.machine import MachineOutcome
from bpfpatch.passes import Pipeline
from bpfpatch.passes.trace import TracePlace, trace_map
from support.inputs import packets
from support.inputs.bpfobjects import fixture_objects

N_PLACES = 3
FRAMES = (packets.tcp4("10.0.0.1", "10.0.0.2", 80), packets.udp4("10.0.0.1", "10.0.0.2", 53))
ADDRESS = 1 << 52
"""From here on a value is an address, which moves where an object has one more variable."""
CODE = 2
"""What the upper half of a function's address is; the lower one moves with the code."""

Values = list[list[int]]

OBJECTS = [
    pytest.param(data, id=name)
    for name, data in fixture_objects()
    # The hook sees the slots of tail-called programs as those of the first.
    if not name.startswith(("tail_calls", "asm_malformed"))
]


def run(
    obj: ElfObject, info: ProgramInfo, frame: bytes, **options: object
) -> tuple[MachineOutcome, Machine]:
    """Run a program of an object on a packet."""
    machine = Machine.of_object(obj, info.name, MachineOptions(**options))  # type: ignore[arg-type]
    context = Xdp(frame) if info.type == "xdp" else Skb(frame)
    return machine.run(context), machine


def told(obj: ElfObject, place: TracePlace, done: MachineOutcome, machine: Machine) -> Values:
    """The values of each time that a place was reached."""
    if place.to == "ring":
        meaning = trace_map(obj)
        records = machine.maps["bpfpatch_trace"].records  # type: ignore[attr-defined]
        return [list(meaning.record(data, obj.byteorder).values) for data in records]
    lines = [line for line in done.printed if f"{place} " in f"{line} "]
    n_lines = max(-(-len(place.registers) // 3), 1)
    joined = [" ".join(lines[at : at + n_lines]) for at in range(0, len(lines), n_lines)]
    return [[int(one, 16) for one in re.findall(r" r\d+=0x([0-9a-f]+)", line)] for line in joined]


def alike(one: Values, other: Values) -> bool:
    """Whether all values are the same, or addresses."""
    if [len(row) for row in one] != [len(row) for row in other]:
        return False
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return all(
        a == b or (a >= ADDRESS and b >= ADDRESS) or (a >> 32 == CODE and b >> 32 == CODE)
        for a, b in pairs
    )


def reached(
    obj: ElfObject,
) -> Iterator[tuple[ProgramInfo, bytes, MachineOutcome, dict[int, Values]]]:
    """Runs of an object's programs, with all registers at each slot that they reach."""
    for info in obj.programs:
        if info.type not in ("xdp", "socket_filter", "sched_cls", "cgroup_skb"):
            continue
        linked = obj.link(info.name)
        for frame in FRAMES:
            seen: dict[int, Values] = {}

            def hook(slot: int, registers: tuple[int, ...], seen: dict[int, Values] = seen) -> None:
                seen.setdefault(int(linked.origin[slot]), []).append(list(registers))  # noqa: B023

            try:
                yield info, frame, run(obj, info, frame, hook=hook)[0], seen
            except BpfPatchError:
                break


@pytest.mark.parametrize("data", OBJECTS)
def test_values_are_those_of_the_original(data: bytes) -> None:
    """Wherever all registers are told, they are what they are there; and nothing else changes."""
    obj = ElfObject.parse(data)
    rng = random.Random(len(data))
    n_told = 0
    for info, frame, before, seen in reached(obj):
        for slot in rng.sample(sorted(seen), min(N_PLACES, len(seen))):
            to = rng.choice(("pipe", "ring"))
            try:
                pipeline = Pipeline.parse(f"trace{{at=#{slot},regs=all,to={to}}}")
                new, _ = pipeline.run_object(obj)
            except UnsupportedError:
                continue
            after, machine = run(new, info, frame)
            assert (after.r0, after.packet) == (before.r0, before.packet)
            (place,) = trace_map(new).places.values()
            wanted = [[row[register] for register in place.registers] for row in seen[slot]]
            assert alike(told(new, place, after, machine), wanted), (info.name, slot, to)
            n_told += 1
    if not n_told:
        pytest.skip("no such case: none of its programs can be run and traced")
