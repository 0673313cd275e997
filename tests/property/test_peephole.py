"""Peephole keeps what programs do, on random code made of what its rules look for."""

from __future__ import annotations

import random

import pytest

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine, Xdp
from bpfpatch.passes import Pipeline, Target
from bpfpatch.passes.peephole import Rule, builtin_rules
from bpfpatch.program import Program
from support.generators.programs.rules import PACKET, program_for

NAMES = list(dict.fromkeys(rule.name for rule in builtin_rules()))
N_VARIANTS = 4
"""How many variants of a rule are looked at; all of them are proved."""

LEAST = 12
"""How many programs for each rule."""


def variants(name: str) -> list[Rule]:
    """Some variants of a rule."""
    found = [rule for rule in builtin_rules() if rule.name == name]
    random.Random(name).shuffle(found)
    return found[:N_VARIANTS]


def answer(program: Program, packet: bytes) -> tuple[int, bytes]:
    """R0 and the packet after a run."""
    done = Machine(program).run(Xdp(packet))
    assert done.packet is not None
    return done.r0, done.packet


def rewritten(program: Program, only: str | None = None) -> tuple[Program, dict[str, int]]:
    """What peephole makes of a program, and which rules it used; with one rule or with all."""
    skip = "" if only is None else ",skip=" + "+".join(name for name in NAMES if name != only)
    result = Pipeline.parse(f"peephole{{safe=false{skip}}}").run(program, Target.loadable("v4"))
    return result.program, dict(result.report.passes[0].counts)


@pytest.mark.parametrize("name", NAMES)
def test_code_does_what_it_did(name: str) -> None:
    """A program gives the same packet and verdict with the rule, and with all rules."""
    fired = 0
    found = variants(name)
    for seed, rule in enumerate(found * (LEAST // len(found))):
        text = program_for(rule, seed)
        if text is None:
            continue
        program = assemble(text)
        packet = random.Random(seed).randbytes(PACKET)
        wanted = answer(program, packet)
        one, counts = rewritten(program, name)
        fired += counts.get(name, 0)
        assert answer(one, packet) == wanted, text
        if not seed % 3:
            both, _ = rewritten(program)
            assert answer(both, packet) == wanted, text
            assert max(len(both), len(one)) <= len(program)
    assert fired, "it fits nowhere"
