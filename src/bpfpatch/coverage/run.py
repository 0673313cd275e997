"""Run a program on inputs, and see what ran of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bpfpatch.btf import Btf
from bpfpatch.elf import ElfObject, Setup
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp import MachineOptions
from bpfpatch.passes import Pipeline
from bpfpatch.passes.cover import SECTION, Cover
from bpfpatch.runs import Input, Outcome, open_runner

from .collect import entry_keys, from_values, n_value_bytes
from .model import Coverage, cover_map


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of the runs.

    Attributes:
        coverage: what ran, in all of them.
        outcomes: one an input.
    """

    coverage: Coverage
    outcomes: tuple[Outcome, ...]


def instrumented(obj: ElfObject, cover: Cover | None = None) -> ElfObject:
    """The object itself where it counts already, else one that does.

    Args:
        obj: stays as it is.
        cover: how to count; by default both sides of every branch.

    Raises:
        BpfPatchError: it cannot be instrumented; see `Cover.run_for`.
    """
    if any(section.name == SECTION for section in obj.sections):
        return obj
    made, _ = Pipeline((cover or Cover(edges=True, count="plain"),)).run_object(obj)
    return made


def run(
    obj: ElfObject,
    program: str,
    inputs: Sequence[Input],
    mode: str = "interp",
    *,
    prog_type: ProgType | str | None = None,
    budget: int = 1_000_000,
    btf: Btf | None = None,
    setup: Setup | None = None,
) -> Ran:
    """Run a program of an object on inputs, one after the other, and take its counters.

    An object that does not count is instrumented for that; it counts plainly,
    since nothing else runs at the same time. Maps keep their contents from one
    input to the next.

    Args:
        obj: the object.
        program: which of its programs.
        inputs: what it gets.
        mode: one of `bpfpatch.runs.MODES`.
        prog_type: the kind of program, where its section does not tell.
        budget: instructions that the interpreter may take for an input.
        btf: types that the interpreter applies CO-RE with; the running kernel's by default.
        setup: what the object's variables and maps start with.

    Raises:
        OptionError: an argument makes no sense.
        KernelError: the kernel refused the program or its maps.
        UnsupportedError: it cannot be instrumented, or not run in this mode.
    """
    counting = instrumented(obj)
    cover = cover_map(counting)
    with open_runner(
        counting.link(program),
        mode,
        obj=counting,
        prog_type=prog_type,
        machine=MachineOptions(budget=budget),
        btf=btf,
        setup=setup,
    ) as runner:
        outcomes = tuple(runner.run(one, with_maps=False) for one in inputs)
        elements = runner.maps().get(cover.home, {})
    none = bytes(n_value_bytes(cover))
    values = [elements.get(key, none) for key in entry_keys(cover)]
    counted = from_values(cover, values, f"map {cover.home!r}")
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not failed:
        return Ran(counted, outcomes)
    said = (
        f"{len(failed)} of {len(outcomes)} runs failed: functions that did not come to their end "
        f"are counted as if they had; the first of them: {failed[0]}"
    )
    return Ran(Coverage.of(cover, counted.hits, (said,)), outcomes)
