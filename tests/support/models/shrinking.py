"""Random programs before and after shrinking: what must stay the same."""

from __future__ import annotations

from bpfpatch.asm import assemble
from bpfpatch.facts import MapDefinition, MapType
from bpfpatch.interp import Machine, Skb
from bpfpatch.passes import Pipeline
from bpfpatch.program import Program
from support.generators.programs import crowded_code, memory_code
from support.generators.programs.memory import HASH_SIZE, KEYS
from support.models.agreement import inputs

PIPELINES = (
    "shrink{safe=false}",
    "shrink",
    "copies{safe=false},dead-stores",
    "jumps{safe=false},copies{safe=false},jumps{safe=false}",
    "dead-stores,jumps,copies,dead-stores",
    "stores{safe=false},dead-stores,stores",
)
PACKETS = (bytes(range(64)), bytes(100), b"\x08\0" * 45)
_HASH, _ARRAY = 5, 6


def on_memory(seed: int, program: Program | None = None) -> tuple[Program, list[object]]:
    """A random program on plain memory and maps, and what it does; or what another one does."""
    program = program or assemble(memory_code(seed, _HASH, _ARRAY))
    specs = {
        _HASH: MapDefinition("hash", MapType.HASH, 4, 8, HASH_SIZE),
        _ARRAY: MapDefinition("array", MapType.ARRAY, 4, 8, KEYS),
    }
    machine = Machine(program, maps=specs)
    out: list[object] = []
    for memory in inputs(seed):
        outcome = machine.run(mem=memory)
        contents = [dict(machine.maps[name].contents()) for name in ("hash", "array")]
        out.append((outcome.r0, outcome.mem, contents))
    return program, out


def on_packets(seed: int, program: Program | None = None) -> tuple[Program, list[object]]:
    """The same for one under register and stack pressure, with functions and callbacks."""
    program = program or assemble(crowded_code(seed, has_callbacks=seed % 3 == 0))
    machine = Machine(program)
    return program, [machine.run(Skb(one, is_l2=True)).r0 for one in PACKETS]


def check_shrinking(seed: int) -> tuple[int, int, str]:
    """Instructions of one random program before and after, and what is different, or ""."""
    run = on_packets if seed % 4 == 0 else on_memory
    before, wanted = run(seed)
    text = PIPELINES[seed % len(PIPELINES)]
    after = Pipeline.parse(text).run(before).program
    _, got = run(seed, after)
    wrong = "" if got == wanted else f"{text}: {got}, not {wanted}"
    return len(before), len(after), wrong
