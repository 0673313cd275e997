"""What counters say is what a trace of the original counts, with as few of them as possible."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from bpfpatch.coverage import Coverage, cover_map
from bpfpatch.coverage.collect import from_value
from bpfpatch.elf import ElfObject
from bpfpatch.interp import Machine, Skb
from bpfpatch.isa import ByteOrder
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover.tree import derive
from support.generators.programs import verifiable_code
from support.models.covering import (
    Trace,
    defined_code,
    disagreements,
    fewest_counters,
    object_of,
    unknown_edges,
)

N_PROGRAMS = 20
PACKETS = [bytes(range(64)), bytes(64)]


def coverage_of(obj: ElfObject, options: str) -> Coverage:
    """What the counters say after runs on the packets."""
    counting, _ = Pipeline.parse(f"cover{{{options}}}").run_object(obj)
    machine = Machine.of_object(counting, obj.programs[0].name)
    for packet in PACKETS:
        machine.run(Skb(packet))
    cover = cover_map(counting)
    (value,) = machine.maps[cover.home].contents().values()
    return from_value(cover, value)


def traced(obj: ElfObject) -> Trace:
    """What ran of the original."""
    trace = Trace(obj)
    machine = trace.machine(obj.programs[0].name)
    for packet in PACKETS:
        trace.start()
        machine.run(Skb(packet))
    return trace


@pytest.mark.parametrize("of_edges", [False, True])
@pytest.mark.parametrize("counting", ["plain", "atomic", "percpu"])
def test_counts_are_those_of_a_trace(counting: str, of_edges: bool) -> None:
    """Blocks, edges and calls that counters stand for are those that a hook counts."""
    options = f"edges={str(of_edges).lower()},count={counting}"
    for seed in range(N_PROGRAMS):
        obj = object_of(defined_code(seed))
        got = coverage_of(obj, options)
        assert not disagreements(got.cover, got.hits, traced(obj)), seed
        assert not of_edges or not unknown_edges(got.cover), seed


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_counts_on_programs_for_the_verifier(byteorder: ByteOrder) -> None:
    """The same holds for programs whose registers are mostly in use, in both byte orders."""
    for seed in range(N_PROGRAMS // 2):
        obj = object_of(verifiable_code(seed).replace("\nf:\n", "\n.subprog f\n"), byteorder)
        got = coverage_of(obj, "edges=true,count=plain")
        assert not disagreements(got.cover, got.hits, traced(obj)), seed


@pytest.mark.parametrize("of_edges", [False, True])
def test_no_counter_is_superfluous(of_edges: bool) -> None:
    """There are E - V + C counters, C the parts that hang together; tree=false has more."""
    saved = 0
    for seed in range(N_PROGRAMS):
        obj = object_of(defined_code(seed))
        options = f"edges={str(of_edges).lower()}"
        small, _ = Pipeline.parse(f"cover{{{options}}}").run_object(obj)
        large, _ = Pipeline.parse(f"cover{{{options},tree=false}}").run_object(obj)
        cover, full = cover_map(small), cover_map(large)
        assert cover.n_counters == fewest_counters(cover, of_edges=of_edges), seed
        saved += full.n_counters - cover.n_counters
    assert saved > N_PROGRAMS


def test_a_counter_everywhere_says_the_same() -> None:
    """Without the tree, blocks and edges have the same counts as with it."""
    for seed in range(N_PROGRAMS // 2):
        obj = object_of(defined_code(seed))
        with_tree = coverage_of(obj, "edges=true")
        without = coverage_of(obj, "edges=true,tree=false")
        assert with_tree.functions == without.functions, seed


def test_counting_what_other_passes_made() -> None:
    """Counters behind other passes count the blocks that these left."""
    for seed in range(N_PROGRAMS // 2):
        obj = object_of(defined_code(seed))
        counting, _ = Pipeline.parse("dce,sprinkle{every=2,seed=3},cover{edges=true}").run_object(
            obj
        )
        machine = Machine.of_object(counting, "f0")
        for packet in PACKETS:
            machine.run(Skb(packet))
        cover = cover_map(counting)
        (value,) = machine.maps[cover.home].contents().values()
        got, trace = from_value(cover, value), traced(obj)
        for function in got.functions:
            assert function.calls == trace.calls[function.start], seed
            for start, end, times in function.blocks:
                assert end == start or times == trace.ran[start], seed


def test_time_is_near_linear() -> None:
    """Four times as many branches take no more than eight times as long to instrument."""

    def seconds(n_branches: int) -> float:
        lines = [f"if r1 s> {at} goto L{at}\nr0 += 1\nL{at}:" for at in range(n_branches)]
        obj = object_of("\n".join([".subprog f0", "r0 = 0", "r1 = 0", *lines, "exit"]))
        assert len(obj.code)
        began = time.process_time()
        Pipeline.parse("cover{edges=true}").run_object(obj)
        return time.process_time() - began

    small, large = (min(seconds(n_branches) for _ in range(3)) for n_branches in (700, 2800))
    assert large < 8 * small


def test_what_follows_from_counts() -> None:
    """A count follows just where all that could flow, given the known ones, agree on it."""
    rng = random.Random(7)
    for _ in range(300):
        n_nodes = rng.randint(1, 7)
        arcs = [(rng.randrange(n_nodes), rng.randrange(n_nodes)) for _ in range(rng.randint(1, 12))]
        flow = [0] * len(arcs)
        for _ in range(rng.randint(0, 20)):  # round some cycle
            walk = _cycle(rng, arcs)
            for arc in walk:
                flow[arc] += 1
        known = {arc: flow[arc] for arc in range(len(arcs)) if rng.random() < 0.5}
        found = derive(n_nodes, arcs, known)
        rows = np.zeros((n_nodes, len(arcs)))
        for arc, (tail, head) in enumerate(arcs):
            rows[tail, arc] -= 1
            rows[head, arc] += 1
        free = [arc for arc in range(len(arcs)) if arc not in known]
        assert len(found) == len(arcs)
        for arc, count in enumerate(found):
            if count is not None:
                assert count == flow[arc]
            # It does not follow where some change of the others that are free makes up for it.
            one = np.zeros((1, len(free)))
            one[0, [at for at, which in enumerate(free) if which == arc]] = 1
            space = rows[:, free]
            rank = np.linalg.matrix_rank(space) if free else 0
            follows = arc in known or np.linalg.matrix_rank(np.vstack([space, one])) == rank
            assert (count is not None) == follows


def _cycle(rng: random.Random, arcs: list[tuple[int, int]]) -> list[int]:
    """Arcs of some way round, or none."""
    walk: list[int] = []
    node = start = arcs[rng.randrange(len(arcs))][0]
    for _ in range(10):
        after = [arc for arc, (tail, _) in enumerate(arcs) if tail == node]
        if not after:
            return []
        walk.append(rng.choice(after))
        node = arcs[walk[-1]][1]
        if node == start:
            return walk
    return []
