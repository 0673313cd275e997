"""Run a program on inputs, and see what ran of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

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
        outcomes: one an input; none where each was handed out.
        n_runs: how many runs there were.
    """

    coverage: Coverage
    outcomes: tuple[Outcome, ...]
    n_runs: int


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
    inputs: Iterable[Input],
    mode: str = "interp",
    *,
    prog_type: ProgType | str | None = None,
    budget: int = 1_000_000,
    btf: Btf | None = None,
    setup: Setup | None = None,
    each: Callable[[Outcome], None] | None = None,
) -> Ran:
    """Run a program of an object on inputs, one after the other, and take its counters.

    An object that does not count is instrumented for that; it counts plainly,
    since nothing else runs at the same time. Maps keep their contents from one
    input to the next.

    Args:
        obj: the object.
        program: which of its programs.
        inputs: what it gets; any number of them, since none is kept.
        mode: one of `bpfpatch.runs.MODES`.
        prog_type: the kind of program, where its section does not tell.
        budget: instructions that the interpreter may take for an input.
        btf: types that the interpreter applies CO-RE with; the running kernel's by default.
        setup: what the object's variables and maps start with.
        each: gets each outcome as it comes, and none is kept then: memory stays as it is
            however many runs there are.

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
        seen = _Seen(each)
        for one in inputs:
            seen.take(runner.run(one, with_maps=False))
        elements = runner.maps().get(cover.home, {})
    none = bytes(n_value_bytes(cover))
    values = [elements.get(key, none) for key in entry_keys(cover)]
    counted = from_values(cover, values, f"map {cover.home!r}")
    if seen.n_failed:
        said = (
            f"{seen.n_failed} of {seen.n_runs} runs failed: functions that did not come to their "
            f"end are counted as if they had; the first of them: {seen.first_error}"
        )
        counted = Coverage.of(cover, counted.hits, (said,))
    return Ran(counted, tuple(seen.kept), seen.n_runs)


@dataclass(slots=True)
class _Seen:
    """What is kept of the runs.

    Attributes:
        each: gets each outcome; without, all are kept.
        kept: outcomes.
        n_runs: how many there were.
        n_failed: how many of them did not come to their end.
        first_error: of the first of those.
    """

    each: Callable[[Outcome], None] | None
    kept: list[Outcome] = field(default_factory=list)
    n_runs: int = 0
    n_failed: int = 0
    first_error: str = ""

    def take(self, outcome: Outcome) -> None:
        self.n_runs += 1
        if outcome.error is not None:
            self.n_failed += 1
            self.first_error = self.first_error or str(outcome.error)
        if self.each is None:
            self.kept.append(outcome)
        else:
            self.each(outcome)
