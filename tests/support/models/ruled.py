"""What must hold of code made of what rules look for: peephole keeps what it does."""

from __future__ import annotations

import random
from collections.abc import Mapping

from bpfpatch.asm import assemble
from bpfpatch.interp import Machine, Xdp
from bpfpatch.passes import Pipeline, Target
from bpfpatch.passes.peephole import Rule, builtin_rules
from bpfpatch.program import Program
from support.generators.programs.rules import PACKET, program_for

NAMES = list(dict.fromkeys(rule.name for rule in builtin_rules()))


def answer(program: Program, packet: bytes) -> tuple[int, bytes]:
    """R0 and the packet after a run."""
    done = Machine(program).run(Xdp(packet))
    assert done.packet is not None
    return done.r0, done.packet


def rewritten(program: Program, only: str | None = None) -> tuple[Program, Mapping[str, int]]:
    """What peephole makes of a program, and which rules it used; with one rule or with all."""
    skip = "" if only is None else ",skip=" + "+".join(name for name in NAMES if name != only)
    result = Pipeline.parse(f"peephole{{safe=false{skip}}}").run(program, Target.loadable("v4"))
    return result.program, result.report.passes[0].counts


def check_rule(rule: Rule, seed: int, *, with_all: bool) -> tuple[int, str]:
    """Rewrite one program with a rule, and perhaps with all: how often it fitted, what is wrong."""
    text = program_for(rule, seed)
    if text is None:
        return 0, ""
    program = assemble(text)
    packet = random.Random(seed).randbytes(PACKET)
    wanted = answer(program, packet)
    one, counts = rewritten(program, rule.name)
    others = [rewritten(program)[0]] if with_all else []
    for after in (one, *others):
        if answer(after, packet) != wanted or len(after) > len(program):
            return counts.get(rule.name, 0), f"rule {rule}, seed {seed}:\n{text}"
    return counts.get(rule.name, 0), ""
