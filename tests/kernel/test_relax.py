"""Relaxed programs in the kernel: it loads them, and they do what the interpreter says.

What is relaxed is a program of half the length with an instruction in front of each: the
original fits its fields, and says what must come out.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from bpfpatch import isa, runs
from bpfpatch.asm import assemble
from bpfpatch.passes import Pipeline
from bpfpatch.patch import Body, How, PatchList
from bpfpatch.program import Program
from bpfpatch.runs import Input, open_runner

pytestmark = pytest.mark.kernel

START = "r6 = *(u8 *)(r1 + 0)\n r0 = 1\n"
WORK = "r0 += r6"
"""Stands for as many of these as the program's number says."""
PROGRAMS = {
    "if": (20_000, f"{START} if r6 > 5 goto out\n {WORK}\n out: exit"),
    "loop": (20_000, f"{START} r7 = 3\n again: {WORK}\n r7 -= 1\n if r7 != 0 goto again\n exit"),
    "may_goto": (20_000, f"{START} may_goto out\n {WORK}\n out: exit"),
    "switch": (
        3_800,
        "\n".join(
            [
                START,
                *(f"if r6 == {k} goto case{k}" for k in range(8)),
                "goto out",
                *(f"case{k}: r0 += {k}\n {WORK}\n goto out" for k in range(8)),
                "out: exit",
            ]
        ),
    ),
    "nested": (
        8_000,
        f"""{START} r7 = 2
        again: if r6 & 1 goto odd
        {WORK}
        if r6 s> 100 goto out
        {WORK}
        goto next
        odd: {WORK}
        if w6 == 7 goto out
        {WORK}
        next: r7 -= 1
        if r7 != 0 goto again
        out: exit""",
    ),
}
INPUTS = [Input(mem=bytes([first])) for first in (0, 5, 7, 120)]


@pytest.fixture(autouse=True)
def _need_kernel() -> None:
    reason = runs.available("jit")
    if reason is not None:
        pytest.skip(f"bpf(2) is not allowed here: {reason}")


def program(name: str) -> Program:
    """One of them, in full."""
    count, text = PROGRAMS[name]
    patches = PatchList(assemble(text))
    work = assemble(WORK).insns
    patches.insert_after(
        patches.find(lambda insns: insns == work[0]), Body(np.tile(work, count - 1))
    )
    return patches.linearize(None).program


@cache
def expected(name: str) -> list[int]:
    """What the kernel says of one that fits."""
    return results(program(name), "jit")


def results(program: Program, mode: str) -> list[int]:
    """R0 for each input."""
    with open_runner(program, mode) as runner:
        return [runner.run(given).r0 for given in INPUTS]


@pytest.mark.parametrize("how", ["gotol", "islands"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_relaxed_programs_load_and_run(name: str, how: How) -> None:
    """A program with jumps over 40,000 instructions loads, and gives what it gave before."""
    before = program(name)
    done = Pipeline.parse("sprinkle").run(before, relax=how)
    assert done.notices
    if name != "may_goto":
        cpu = int(isa.min_cpu(done.program.insns).max())
        assert cpu == 4 if how == "gotol" else cpu <= 3
    assert results(done.program, "jit") == expected(name)


@pytest.mark.parametrize("how", ["gotol", "islands"])
def test_there_is_room_for_what_the_kernel_writes_out(how: How) -> None:
    """Divisions become several instructions after loading, and all jumps still reach."""
    text = f"{START} r7 = 3\n if r6 > 5 goto out\n {WORK}\n out: exit"
    work = assemble(f"{WORK}\n r0 /= r7\n {WORK}").insns
    patches = PatchList(assemble(text))
    at = patches.find(lambda insns: insns == work[0])
    patches.insert_after(at, Body(np.repeat(work, [29_000, 600, 3_500])))
    done = patches.linearize(how)
    assert "relax" in done.remap.passes
    assert len(results(done.program, "jit")) == len(INPUTS)
