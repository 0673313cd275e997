"""The compiled functions do what the interpreter does that goes by the book."""

from __future__ import annotations

import random

import pytest

from bpfpatch.asm import assemble
from bpfpatch.errors import BpfPatchError
from bpfpatch.interp import BudgetError, InterpError, Machine, MachineOptions, TrapError
from bpfpatch.program import Program
from support.generators.programs import insn_soup, random_code

MEM = bytes(range(200, 232))
BUDGET = 3000

Result = tuple[object, ...]


def result(program: Program, engine: str, **options: object) -> Result:
    """All that can be seen of a run; an error by its kind and place."""
    machine = Machine(program, options=MachineOptions(engine=engine, budget=BUDGET, **options))  # type: ignore[arg-type]
    try:
        outcome = machine.run(mem=MEM)
    except BudgetError as error:
        return ("budget", error.unit)
    except TrapError as error:
        return ("trap", error.slot, error.address, error.size, error.access, error.callers)
    except InterpError as error:
        return (type(error).__name__, error.slot)
    return ("done", outcome.r0, outcome.n_insns, outcome.mem)


def agree(program: Program, seed: int, **options: object) -> str:
    """Compare the engines on one program; how it ended."""
    wanted = result(program, "reference", **options)
    got = result(program, "compiled", **options)
    if wanted[0] == "budget" and got[0] == "trap":
        return "budget"  # in the block in which the budget ends, both are right
    assert got == wanted, seed
    return str(wanted[0])


@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_any_control_flow(start: int) -> None:
    """Random instructions with random jumps give the same R0, memory, count or trap."""
    ends = [agree(insn_soup(seed), seed) for seed in range(start, start + 250)]
    assert ends.count("done") > 25


@pytest.mark.parametrize("start", range(0, 500, 100))
def test_structured_programs(start: int) -> None:
    """Programs with functions and loops give the same."""
    ends = [agree(assemble(random_code(seed)), seed) for seed in range(start, start + 100)]
    assert ends.count("done") > 90


def test_a_hook_changes_nothing_and_sees_the_same() -> None:
    """With a hook the result is the same, and both engines show it the same registers."""
    for seed in range(150):
        program = insn_soup(seed)
        seen: dict[str, list[tuple[int, tuple[int, ...]]]] = {"reference": [], "compiled": []}
        for engine, steps in seen.items():
            hook = lambda slot, regs, steps=steps: steps.append((slot, regs))  # noqa: E731
            hooked = result(program, engine, hook=hook)
            if hooked[0] != "budget":
                assert hooked == result(program, engine), seed
        if hooked[0] == "done":
            assert seen["compiled"] == seen["reference"], seed


def test_big_endian_machine() -> None:
    """On a big-endian machine, too, the engines agree."""
    for seed in range(150):
        agree(insn_soup(seed), seed, byteorder="big")


def test_random_bytes_never_break_the_machine() -> None:
    """Any bytes end in a result or in an error of ours."""
    rng = random.Random(5)
    for _ in range(300):
        program = Program.from_bytes(rng.randbytes(8 * rng.randint(1, 12)))
        for engine in ("compiled", "reference"):
            try:
                Machine(program, options=MachineOptions(engine=engine, budget=1000)).run(mem=MEM)  # type: ignore[arg-type]
            except BpfPatchError:
                continue
