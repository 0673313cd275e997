"""Load a case and compare what became of it with what our pipeline makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from bpfpatch import kernel
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts import SEEN, STACK_DEPTH, ZEXT_DST
from bpfpatch.kernel import LoadedProgram, Submitted, VerifierError
from bpfpatch.linux import parity
from bpfpatch.linux.log.auxload import LOG_LEVEL
from bpfpatch.linux.parity.sweep import SOURCES, Source, with_columns
from bpfpatch.passes import Pipeline
from support.cases.paritycase import ParityCase, load_case


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case that the kernel accepts, compared with each source of aux data.

    Attributes:
        case: the case.
        by_source: by source what came of it.
        is_by_paths: whether our own analysis is wrong in nothing but what only the paths that the
            verifier walked tell: which code is dead, and which upper halves are read. With the
            kernel's word for these all is equal, and all that is seen counts as seen.
    """

    case: ParityCase
    by_source: dict[Source, parity.Parity | Exception]
    is_by_paths: bool = False

    @property
    def is_equal(self) -> bool:
        """Whether all are equal."""
        return all(not why(one) for one in self.by_source.values())

    @property
    def is_explained(self) -> bool:
        """Whether all are equal but for `is_by_paths`."""
        others = [one for source, one in self.by_source.items() if source != "offline"]
        return self.is_equal or (self.is_by_paths and not any(map(why, others)))

    def __str__(self) -> str:
        lines = [f"{self.case.name} ({self.case.type} {self.case.attach} flags {self.case.flags})"]
        for source, one in self.by_source.items():
            lines.append(f"with aux from {source}: {why(one) or 'equal'}")
        return "\n".join([*lines, self.case.text])


def why(one: parity.Parity | Exception) -> str:
    """The differences as text; "" for none."""
    if isinstance(one, Exception):
        return f"{type(one).__name__}: {one}"
    return "; ".join(map(str, one.differences))


def compare_case(
    case: ParityCase, sources: tuple[Source, ...] = SOURCES, pipeline: Pipeline | None = None
) -> Outcome:
    """Load and compare a case.

    Another process may have had constants blinded for a moment, also ours: what differs is
    loaded once more, with that switched off.

    Raises:
        VerifierError: the kernel refuses it.
    """
    sources = tuple(source for source in sources if source in case.aux.split())
    found = _compare(case, sources, pipeline)
    if found.is_equal or case.is_hardened:
        return found
    with kernel.harden(0):
        return _compare(case, sources, pipeline)


def _compare(case: ParityCase, sources: tuple[Source, ...], pipeline: Pipeline | None) -> Outcome:
    loaded, maps = load_case(case, log_level=LOG_LEVEL, keep_log="kernel" in sources)
    pipeline = pipeline or Pipeline.kernel("6.18", case.is_hardened, case.flags)
    out: dict[Source, parity.Parity | Exception] = {}
    facts: dict[Source, Submitted] = {}
    with loaded:
        what = kernel.submitted(loaded, maps)
        for source in sources:
            try:
                given = facts[source] = with_columns(loaded, what, source)
                done = [other for other in out if _has_same_facts(facts[other], given)]
                # Of the same facts a pipeline makes the same program: no need to see it twice.
                out[source] = out[done[0]] if done else parity.compare(loaded, given, pipeline)
            except Exception as error:  # of any kind: it is counted as a difference
                out[source] = error
        is_by_paths = (
            {"kernel", "offline"} <= facts.keys()
            and bool(why(out["offline"]))
            and _is_by_paths(loaded, facts["kernel"], facts["offline"], pipeline)
        )
    return Outcome(case, out, is_by_paths)


def _is_by_paths(
    loaded: LoadedProgram, theirs: Submitted, ours: Submitted, pipeline: Pipeline
) -> bool:
    """Whether ours is right once it has the kernel's word for what only paths tell."""
    told = {name: theirs.program.columns[name] for name in (SEEN, ZEXT_DST)}
    if (told[SEEN].values & ~ours.program.columns[SEEN].values).any():
        return False
    mixed = replace(ours, program=ours.program.with_columns(**told))
    try:
        return parity.compare(loaded, mixed, pipeline).is_equal
    except BpfPatchError:
        return False


def _has_same_facts(first: Submitted, second: Submitted) -> bool:
    """Whether all columns, and the stack's depths, are the same."""
    one, other = first.program, second.program
    if one.columns.keys() != other.columns.keys() or one.tables.keys() != other.tables.keys():
        return False
    depths = [program.tables.get(STACK_DEPTH) for program in (one, other)]
    if None not in depths and depths[0].rows.tolist() != depths[1].rows.tolist():
        return False
    return all(
        np.array_equal(column.values, other.columns[name].values)
        for name, column in one.columns.items()
    )


@dataclass(slots=True)
class SeedsFound:
    """What came of some random programs.

    Attributes:
        n_equal: those that are equal with all sources.
        n_by_paths: those that are but for `LoadOutcome.is_by_paths`.
        n_refused: those that the kernel refused.
        different: the others, each as text.
        seeds: the seeds of these.
    """

    n_equal: int = 0
    n_by_paths: int = 0
    n_refused: int = 0
    different: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


def run_seeds(
    seeds: Iterable[int],
    make: Callable[[int], ParityCase],
    sources: tuple[Source, ...] = SOURCES,
) -> SeedsFound:
    """Compare random programs.

    Args:
        seeds: one for each program.
        make: what makes a program of a seed.
        sources: of the aux data.
    """
    found = SeedsFound()
    for seed in seeds:
        try:
            outcome = compare_case(make(seed), sources)
        except VerifierError:
            found.n_refused += 1
            continue
        if outcome.is_equal:
            found.n_equal += 1
        elif outcome.is_explained:
            found.n_by_paths += 1
        else:
            found.different.append(str(outcome))
            found.seeds.append(seed)
    return found
