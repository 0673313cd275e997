"""Programs under pressure: what must stay the same when something is put into them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from bpfpatch import isa, kernel, runs
from bpfpatch.asm import assemble
from bpfpatch.coverage import collect, cover_map
from bpfpatch.dataflow.blocks import Blocks
from bpfpatch.elf import ElfObject
from bpfpatch.interp import Skb
from bpfpatch.passes import Pipeline
from bpfpatch.passes.scratch import Scratch
from bpfpatch.passes.sites import indirect_targets
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import Program
from support.cases.lined import with_lines
from support.generators.programs import crowded_code
from support.models.covering import Trace, disagreements, object_of

PACKETS = (bytes(range(64)), bytes(100), b"\x08\0" * 45)
JUNK = 0x5EED
MOST_VERIFIED = 50_000
OPTIONS = ("count=plain", "edges=true", "count=percpu", "edges=true,count=percpu", "tree=false")


def spoiled(program: Program, rng: random.Random | None = None) -> tuple[Program, int]:
    """A program in which junk is put, in front of all it can, wherever nothing is said to be.

    Args:
        program: which.
        rng: chooses two dead words of the frame at each place; by default all are used.

    Returns:
        The program, and how often something was put in.
    """
    patches = PatchList(program)
    view = patches.view()
    scratch = Scratch(view, Blocks.of(view, indirect_targets(program, view)))
    n_used = 0
    for slot in np.flatnonzero(view.node >= 0).tolist():
        if isinstance(scratch.at(slot, 0), str):
            continue
        words = scratch.dead(slot)
        below = scratch.home(int(view.subprog_of(np.array([slot], np.int32))[0]), 8)
        if rng is not None:
            words = rng.sample(words, min(len(words), 2))
        words += [] if below is None else [below]
        free = [reg for reg in range(isa.R10) if not scratch.live(slot) >> reg & 1]
        parts = [isa.store("u64", isa.R10, -word, JUNK) for word in words]
        parts += [isa.mov(reg, JUNK) for reg in free]
        if parts:
            patches.insert_before(int(view.node[slot]), Body.of(*parts))
            n_used += len(parts)
    return patches.linearize().program, n_used


def results(program: Program, packets: Sequence[bytes] = PACKETS) -> list[int]:
    """R0 for each packet, in the kernel.

    Raises:
        KernelError: it does not load.
    """
    lined, btf = with_lines(program)
    with kernel.load(lined, prog_type="sched_cls", btf=btf) as loaded:
        return [loaded.test_run(packet).retval for packet in packets]


def n_verified(program: Program) -> int:
    """How many instructions the verifier goes through."""
    lined, btf = with_lines(program)
    with kernel.load(lined, prog_type="sched_cls", btf=btf) as loaded:
        return loaded.info().verified_insns


def check_crowded(seed: int) -> str:
    """What is wrong with one random program, or ""."""
    rng = random.Random(seed)
    has_callbacks = seed % 3 == 0
    text = crowded_code(seed, has_callbacks=has_callbacks)
    program = assemble(text)
    if n_verified(program) > MOST_VERIFIED:
        return ""  # with what is put in, the verifier's budget might not do
    expected = results(program)
    changed = {
        "junk": spoiled(program, rng)[0],
        "blind": Pipeline.parse(f"blind{{seed={seed}}}").run(program).program,
    }
    for name, one in changed.items():
        got = results(one)
        if got != expected:
            return f"{name}: {got}, not {expected}"
    if has_callbacks:
        return ""
    options = OPTIONS[seed % len(OPTIONS)]
    obj = object_of(text, section="tc")
    name = obj.programs[0].name
    counting = Pipeline.parse(f"cover{{{options}}}").run_object(obj)[0]
    cover = cover_map(counting)
    with runs.open_runner(counting.link(name), "jit", obj=counting) as runner:
        got = [runner.run(runs.Input(packet=one), with_maps=False).r0 for one in PACKETS]
        elements = runner.maps()[cover.home]
    if got != expected:
        return f"cover {options}: {got}, not {expected}"
    none = bytes(collect.n_value_bytes(cover))
    values = [elements.get(key, none) for key in collect.entry_keys(cover)]
    hits = collect.from_values(cover, values).hits
    wrong = disagreements(cover, hits, _traced(obj))
    return f"cover {options}: {wrong[0]}" if wrong else ""


def _traced(obj: ElfObject) -> Trace:
    trace = Trace(obj)
    machine = trace.machine(obj.programs[0].name)
    for packet in PACKETS:
        trace.start()
        machine.run(Skb(packet, is_l2=True))
    return trace
