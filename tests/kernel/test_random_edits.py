"""Random edits that change no meaning, on real objects, judged by the kernel."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bpfpatch import isa
from bpfpatch.elf import ElfObject
from bpfpatch.patch import Body, PatchList
from bpfpatch.program import validate
from fixtures import build
from support.inputs.bpfobjects import fixture_path
from support.inputs.packets import SKB_SAMPLES
from support.machine.tools import Loaded, bpf_run, loaded, need_bpf

RUNNABLE = [source for source in build.SOURCES if source.runs and source.is_committed]

BY_CHANCE = {"loops"}
"""Programs whose answer depends on the order of a hash, which the kernel seeds anew."""

# Each leads control to where it would have gone anyhow, by another way.
IN_FRONT = [
    Body.asm("goto @orig"),
    Body.asm("goto @end"),
    Body.asm("goto b; a: goto @orig; b: goto a"),
    Body.asm("goto a; a: goto +0"),
]
BEHIND = [Body.asm("goto @end"), Body.asm("goto b; a: goto @end; b: goto a")]
AROUND = [
    Body.asm("goto a; a: @orig"),
    Body.asm("goto b; a: @orig; goto @end; b: goto a"),
    Body.asm("@orig; goto @end"),
]
INSTEAD_OF_JUMP = [
    Body.asm("goto @target"),
    Body.asm("goto a; a: goto @target"),
    Body.asm("goto b; a: goto @target; b: goto a"),
]


def edit_at_random(rng: random.Random, patches: PatchList) -> None:
    """One round of edits at random places, in random portions, by random verbs."""
    # The kernel refuses code that nothing reaches, such as a prologue that nothing falls into.
    view = patches.view()
    falls = isa.falls_through(view.insns)
    falls[isa.second_slots(view.insns)] = True
    is_fallen_into = np.append(False, falls[:-1])
    is_fallen_into[view.starts] = True
    for site in view.node[is_fallen_into & (view.node >= 0)].tolist():
        if rng.random() < 0.1:
            patches.prepend(site, rng.choice(IN_FRONT))
    nodes = patches.nodes()
    chosen = nodes[np.array(sorted(rng.sample(range(nodes.size), nodes.size // 3)), np.intp)]
    for site in chosen.tolist():
        insn = patches[site]
        goes_on = bool(isa.falls_through(insn.insns)[0])
        choice = rng.random()
        if insn.code == isa.JA and choice < 0.5:
            patches.replace(site, rng.choice(INSTEAD_OF_JUMP))
        elif choice < 0.4:
            patches.insert_before(site, rng.choice(IN_FRONT))
        elif choice < 0.75 and goes_on:
            patches.insert_after(site, rng.choice(BEHIND))
        elif goes_on:
            patches.replace(site, rng.choice(AROUND))
    jumps = patches.find(lambda insns: insns["code"] == isa.JA)
    some = jumps[np.array([rng.random() < 0.2 for _ in range(jumps.size)], bool)]
    patches.insert_before(some, IN_FRONT[0])


def outcomes(what: Loaded, names: tuple[str, ...]) -> list[tuple[str, str, int, bytes]]:
    """What each program makes of each packet; what the kernel does not run is left out."""
    out = []
    for name in sorted(set(names) - BY_CHANCE):
        for packet, data in SKB_SAMPLES.items():
            try:
                ran = bpf_run(what.pin(name), data)
            except OSError:
                continue
            out.append((name, packet, ran.retval, ran.data))
    return out


@pytest.mark.kernel
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("source", RUNNABLE, ids=lambda source: source.stem)
def test_detours_change_nothing(source: build.Source, seed: int, tmp_path: Path):
    """An object full of detours loads and does with every packet what the original does."""
    need_bpf()
    original = fixture_path(build.default_build(source).object_name)
    obj = ElfObject.parse(original.read_bytes())
    patches = PatchList(obj.code)
    rng = random.Random(f"{source.name} {seed}")
    for _ in range(3):
        edit_at_random(rng, patches)
    result = patches.linearize()
    validate(result.program)
    assert len(result.program) > len(obj.code)
    changed = tmp_path / original.name
    obj.with_code(result).write(changed)
    with loaded(original) as before:
        expected = outcomes(before, source.runs)
    with loaded(changed) as after:
        assert outcomes(after, source.runs) == expected
