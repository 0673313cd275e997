"""Verifying one program, or all programs of an object."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bpfpatch import kernel
from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.elf.setup import Setup
from bpfpatch.errors import BpfPatchError, OptionError
from bpfpatch.facts import MapDefinition
from bpfpatch.interp.limits import limits_met
from bpfpatch.runs import MODES
from bpfpatch.text import plural, unknown

from .case import Case
from .compare import WHAT, differences, is_inconclusive
from .entries import Places
from .inkernel import check_in_kernel
from .kinds import PACKET_SHAPES, Shape, shape_of
from .pairing import Code, Provenance, pair
from .search import Bounds, Found, Search, run_both
from .shrink import shrink
from .side import RunSubject, Side
from .trace import SideBySide, record
from .verdict import Counterexample, Verdict

_MOST_IN_KERNEL: Final = 400
_DEFAULT: Final = Bounds()
_NOTHING: Final = Setup()


@dataclass(frozen=True, slots=True)
class _Job:
    """One pair of programs and how to compare them."""

    before: RunSubject
    after: RunSubject
    name: str
    prog_type: str
    modes: tuple[str, ...]
    bounds: Bounds
    ignore: Collection[str]
    vary_rodata: bool
    provenance: Provenance
    progress: Callable[[int], None] | None
    setup: Setup
    fixed: Places

    @property
    def shape(self) -> Shape:
        """What the programs are run on."""
        return shape_of(self.prog_type)


def verify(
    before: Code,
    after: Code,
    *,
    obj: ElfObject | None = None,
    after_obj: ElfObject | None = None,
    maps: Mapping[int, MapDefinition] | None = None,
    kind: str | None = None,
    modes: Sequence[str] = ("interp",),
    inputs: Iterable[bytes | Case] = (),
    bounds: Bounds = _DEFAULT,
    ignore: Collection[str] = (),
    vary_rodata: bool = True,
    provenance: Provenance = None,
    progress: Callable[[int], None] | None = None,
    setup: Setup = _NOTHING,
) -> Verdict:
    """Look for an input on which a rewritten program does not do what the original does.

    Both are run on inputs that are made to reach all of their branches; see
    docs/verify.md. What is compared: R0, the packet, the context, maps, global
    data, helper calls with their arguments, what is printed, and errors.

    Args:
        before: the original: linked from an object, or flat.
        after: the rewritten program.
        obj: the object that a linked program is of.
        after_obj: that of the rewritten one, where it is another.
        maps: of flat programs, by the number in their ld_imm64.
        kind: what they are, as bpftool names it: ``xdp``, ``sched_cls``. A linked program's
            section tells, a flat one is run on plain memory (``mem``).
        modes: in which modes to run them, of `bpfpatch.runs.MODES`.
        inputs: packets, or plain memory, to run before those that are made.
        bounds: how far to go.
        ignore: what need not be the same: members of `WHAT`, ``maps:NAME`` for one map.
        vary_rodata: run with other read-only data, too; it is settled only when an object
            is loaded. Say no if the rewriting relied on what is in it; it is not varied either
            where an object was given values: see `ElfObject.with_values`.
        provenance: what the pipeline or linearizing returned, to follow both in step.
        progress: called now and then with the number of inputs so far.
        setup: values of the object's variables and entries of its maps that every run starts
            with, and that no input changes. Of what the rewritten object has no more, nothing.

    Raises:
        OptionError: arguments that make no sense, or a setup that does not fit the object.
    """
    _check_options(before, after, obj, modes, ignore)
    first = _subject(before, obj, maps, setup)
    second = _subject(after, after_obj or obj, maps, setup, obj)
    job = _Job(
        before=first,
        after=second,
        name=before.name if isinstance(before, LinkedProgram) else "",
        prog_type=kind or _kind_of(before),
        modes=tuple(modes),
        bounds=bounds,
        ignore=ignore,
        vary_rodata=vary_rodata
        and not any(one.obj is not None and one.obj.settled for one in (first, second)),
        provenance=provenance,
        progress=progress,
        setup=setup,
        fixed=frozenset() if obj is None else setup.prepare(obj).fixed,
    )
    return _verify(job, [_case(one, job.shape) for one in inputs])


def verify_objects(
    before: ElfObject,
    after: ElfObject,
    names: Sequence[str] = (),
    **options: object,
) -> Iterator[Verdict]:
    """Verify all programs of an object, one after the other; one that got lost is a verdict, too.

    Args:
        before: the original.
        after: the rewritten object.
        names: only these programs, or other functions.
        **options: as for `verify`.

    Yields:
        A verdict for each; `Verdict.is_lost` where the rewritten object has no such program.

    Raises:
        OptionError: the original has no program of one of these names, or none at all.
    """
    there = {info.name for info in after.functions}
    functions = [info.name for info in before.functions]
    # Objects of user-space VMs have no programs, but functions in .text.
    known = [info.name for info in before.programs] or functions
    for name in names:
        if name not in functions:
            raise OptionError(f"in the original {unknown('program', name, known)}")
    if not known:
        raise OptionError("the original has neither programs nor named functions")
    for name in names or known:
        if name not in there:
            yield Verdict(name, None, is_lost=True)
            continue
        try:
            pair_of = before.link(name), after.link(name)
        except BpfPatchError as error:
            yield Verdict(name, None, not_checked=(str(error),))
            continue
        yield verify(*pair_of, obj=before, after_obj=after, **options)  # type: ignore[arg-type]


def _check_options(
    before: Code, after: Code, obj: ElfObject | None, modes: Sequence[str], ignore: Collection[str]
) -> None:
    if isinstance(before, LinkedProgram) != isinstance(after, LinkedProgram):
        raise OptionError(
            "one program is linked and the other flat: give two linked or two flat programs"
        )
    if isinstance(before, LinkedProgram) and obj is None:
        raise OptionError("a linked program runs with its object's maps: give obj=")
    for mode in modes:
        if mode not in MODES:
            raise OptionError(f"there is no mode {mode!r}; choose from {', '.join(MODES)}")
    if not modes:
        raise OptionError(f"no mode to run in; choose from {', '.join(MODES)}")
    for what in ignore:
        if what not in WHAT and not what.startswith("maps:"):
            known = ", ".join((*WHAT, "maps:NAME"))
            raise OptionError(f"{what!r} is not compared; choose from {known}")


def _subject(
    code: Code,
    obj: ElfObject | None,
    maps: Mapping[int, MapDefinition] | None,
    setup: Setup,
    original: ElfObject | None = None,
) -> RunSubject:
    if obj is None:
        if setup:
            raise OptionError("a setup is of an object's variables and maps; this is flat code")
        return RunSubject(code, None, maps or {})
    prepared = setup.prepare(obj, original)
    known = obj if original is None else original
    own = {one.name for one in obj.maps} - {one.name for one in known.maps}
    return RunSubject(code, prepared.obj, maps or {}, prepared.entries, frozenset(own))


def _kind_of(code: Code) -> str:
    if not isinstance(code, LinkedProgram):
        return "mem"
    if code.type:
        return code.type
    found = kernel.section_kind(code.section).type
    return "" if found is None else found.text


def _case(given: bytes | Case, shape: Shape) -> Case:
    if isinstance(given, Case):
        return given
    return Case(packet=given) if shape in PACKET_SHAPES else Case(ctx=given)


def _verify(job: _Job, inputs: list[Case]) -> Verdict:
    start = time.monotonic()
    try:
        sides = _sides(job)
    except BpfPatchError as error:
        reason = f"the interpreter cannot run it: {error}"
        return Verdict(job.name, None, not_checked=(reason,), seconds=time.monotonic() - start)
    search = Search(
        sides[0],
        sides[1],
        job.shape,
        job.bounds,
        job.ignore,
        job.vary_rodata,
        job.progress,
        fixed=job.fixed,
        goes_on="interp" not in job.modes,  # then the kernel is to say so itself
    )
    found = None
    try:
        search.run(inputs)
    except Found as caught:
        found = _counterexample(job, sides, caught)
    n_compared = search.n_runs - search.n_inconclusive
    counts = {"interp": n_compared} if "interp" in job.modes else {}
    not_checked = list(_not_checked(search))
    if search.n_errors == n_compared and found is None:
        counts = dict.fromkeys(counts, 0)
    for mode in job.modes:
        if mode == "interp" or found is not None:
            continue
        cases = [*inputs, *_for_kernel(search)]
        found, counts[mode] = _in_kernel(job, mode, cases, not_checked)
    return Verdict(
        job.name,
        found,
        counts,
        (sides[0].coverage, sides[1].coverage),
        tuple(not_checked),
        tuple(_notes(search)),
        time.monotonic() - start,
    )


def _sides(job: _Job) -> tuple[Side, Side]:
    before = Side(job.before, job.shape, budget=job.bounds.budget)
    return before, Side(job.after, job.shape, budget=job.bounds.budget)


def _counterexample(job: _Job, sides: tuple[Side, Side], found: Found) -> Counterexample:
    def differs(case: Case) -> bool:
        before, after = run_both(*sides, case)
        return not is_inconclusive(before) and bool(differences(before, after, job.ignore))

    case = shrink(found.case, differs) if differs(found.case) else found.case
    left = differences(*run_both(*sides, case), job.ignore) or found.found
    steps = (
        record(job.before, job.shape, case, job.bounds.budget),
        record(job.after, job.shape, case, 8 * job.bounds.budget),
    )
    pairs = pair(job.before.program, job.after.program, job.provenance)
    names = _names(job.before), _names(job.after)
    rows = SideBySide(job.before.flat, job.after.flat, *steps, pairs, names).rows()
    return Counterexample(case, "interp", left, tuple(rows), setup=job.setup)


def _names(subject: RunSubject) -> dict[int, str]:
    """What relocations stand for, by slot."""
    if not isinstance(subject.program, LinkedProgram):
        return {}
    return {one.slot: one.target.name for one in subject.program.relocations}


def _not_checked(search: Search) -> Iterator[str]:
    if not search.n_runs - search.n_inconclusive:
        yield f"the original took more than {search.before.budget} instructions on every input"
        return
    if search.n_errors == search.n_runs - search.n_inconclusive:
        for text in search.errors.values():
            yield f"in the interpreter every run ends in an error, the same in both: {text}"


def _notes(search: Search) -> Iterator[str]:
    if search.n_inconclusive:
        yield (
            f"{search.n_inconclusive} of {search.n_runs} inputs took the original more than "
            f"{search.before.budget} instructions, and were not compared"
        )
    if 0 < search.n_errors < search.n_runs - search.n_inconclusive:
        text = next(iter(search.errors.values()))
        yield f"{plural(search.n_errors, 'input')} ended in the same error in both, such as: {text}"
    yield from limits_met(sorted(search.before.machine.called | search.after.machine.called))
    lacking = search.before.machine.stand_ins | search.after.machine.stand_ins
    if lacking:
        yield f"the interpreter lacks {', '.join(sorted(lacking))}, which gave 0 instead"
    lost = sorted(set(search.before.machine.maps) ^ set(search.after.machine.maps))
    if lost:
        yield f"only one of the programs has: {', '.join(lost)}"


def _for_kernel(search: Search) -> list[Case]:
    """What the search kept; the kernel sees it in the order in which it was found."""
    kept = [one.case for one in search.kept]
    suspects = search.suspects[: _MOST_IN_KERNEL // 4]
    return list(dict.fromkeys([*suspects, *kept, *search.sample]))[:_MOST_IN_KERNEL]


def _in_kernel(
    job: _Job, mode: str, cases: list[Case], not_checked: list[str]
) -> tuple[Counterexample | None, int]:
    deadline = time.monotonic() + job.bounds.seconds
    done = check_in_kernel(
        job.before,
        job.after,
        job.shape,
        job.prog_type,
        mode,
        cases,
        ignore=job.ignore,
        is_over=lambda: time.monotonic() > deadline,
    )
    if done.reason:
        not_checked.append(done.reason)
    if done.case is None:
        return None, done.n_runs
    found = Counterexample(done.case, mode, done.differences, (), done.earlier, job.setup)
    return found, done.n_runs
