"""Rewriting one input, for ``bpfpatch apply``: run, check, and say what was done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pass, Pipeline, Report, Result, Target
from bpfpatch.patch import How
from bpfpatch.program import Program

from .failure import Failure, blame
from .inputs import CliInput, reference_names
from .plugins import blame_pass
from .screen import echo, patience
from .values import Values

if TYPE_CHECKING:
    from bpfpatch.report import Diff
    from bpfpatch.verify import Verdict


@dataclass(frozen=True)
class Rewriting:
    """What is to be done to each input.

    Attributes:
        pipeline: the passes.
        values: for its variables.
        target: whom it is for.
        dwarf: what to do with DWARF.
        relax: how jumps that became too far are made to fit; None for not at all.
        with_diff: tell what changed.
        load_check: load each program, and mend what the kernel refuses.
        bounds: of `bpfpatch.verify.Bounds`, where each program is to be run before and after.
        quiet: do not say what was mended.
    """

    pipeline: Pipeline
    values: Values
    target: Target
    dwarf: Any
    relax: How | None
    with_diff: bool = False
    load_check: bool = False
    bounds: Mapping[str, Any] | None = None
    quiet: bool = False

    def of(self, given: CliInput) -> tuple[Rewrite, list[Verdict] | None]:
        """Rewrite one input; verdicts only where they are asked for.

        Raises:
            Failure: it cannot be done, or a check failed.
        """
        source = self.values.into_input(given)
        with blame(source.shown), patience("rewriting"):
            done = _rewrite(source, *_run(source, self), with_diff=self.with_diff)
        if self.load_check:
            done = _load_checked(source, done, self.dwarf, quiet=self.quiet)
        if self.bounds is None:
            return done, None
        return done, list(_verified(source, done, self.bounds))


@dataclass(frozen=True, eq=False)
class Rewrite:
    """What was rewritten, ready to be written.

    Attributes:
        data: the new file.
        notices: what had to be taken away, or was done unasked.
        result: the pipeline's.
        diff: the change, where it was asked for.
        changed: the new object, where it is one.
    """

    data: bytes
    notices: tuple[str, ...]
    result: Result
    diff: Diff | None
    changed: ElfObject | None = None


def _run(source: CliInput, asked: Rewriting) -> tuple[ElfObject | None, Result]:
    running: list[Pass] = []
    with blame_pass(running):
        if source.obj is None:
            result = asked.pipeline.run(
                source.program, asked.target, progress=running.append, relax=asked.relax
            )
            return None, result
        return asked.pipeline.run_object(
            source.obj, asked.target, asked.dwarf, running.append, asked.relax
        )


def _rewrite(
    source: CliInput, changed: ElfObject | None, result: Result, *, with_diff: bool
) -> Rewrite:
    notices = result.notices
    if changed is not None:
        data, notices = changed.to_bytes(), notices + changed.notices
    elif source.format == "asm":
        data = _assembly(result.program)
    else:
        data = result.program.to_bytes(source.byteorder)
    diff = _diff(source, result, changed) if with_diff else None
    return Rewrite(data, notices, result, diff, changed)


def _load_checked(source: CliInput, done: Rewrite, dwarf: Any, *, quiet: bool) -> Rewrite:
    """The same once all programs load, mended where the kernel refused one.

    Raises:
        Failure: one does not load, and nothing helps.
    """
    from bpfpatch.repair import repair  # noqa: PLC0415 - few ask for it

    if done.changed is None:
        raise Failure(source.shown, "--load-check takes an object")
    with blame(source.shown), patience("loading"):
        repaired = repair(done.changed, name=source.shown, dwarf=dwarf)
    report = repaired.report
    if not report.is_whole:
        reasons = [f"{one.name}: {one.reason}" for one in report.programs if one.reason]
        raise Failure(source.shown, *reasons, "nothing is written")
    if not report.mendings:
        return done
    for line in () if quiet else report.lines():
        echo(f"{source.shown}: {line}", err=True)
    assert repaired.obj is not None
    code = repaired.code
    remap = done.result.remap.then(code.remap)
    result = replace(done.result, program=code.program, remap=remap)
    return replace(done, data=repaired.obj.to_bytes(), result=result, changed=repaired.obj)


def _verified(source: CliInput, done: Rewrite, given: Mapping[str, Any]) -> Iterator[Verdict]:
    """What running each program before and after says.

    Args:
        source: the original.
        done: what became of it.
        given: of `bpfpatch.verify.Bounds`, where not its own are wanted.

    Raises:
        Failure: one behaves in another way.
    """
    from bpfpatch.verify import Bounds, verify, verify_objects  # noqa: PLC0415 - few ask for it

    bounds = Bounds(**given)
    if source.obj is None or done.changed is None:
        verdicts = iter(
            [verify(source.program, done.result.program, provenance=done.result, bounds=bounds)]
        )
    elif not source.obj.programs:
        return
    else:
        verdicts = verify_objects(source.obj, done.changed, provenance=done.result, bounds=bounds)
    while True:
        with patience("verifying"):
            verdict = next(verdicts, None)
        if verdict is None:
            return
        if verdict.differs:
            raise Failure(source.shown, *verdict.lines(), "nothing is written")
        yield verdict


def _assembly(program: Program) -> bytes:
    from bpfpatch.asm import format_program  # noqa: PLC0415 - objects need no assembler

    return format_program(program).encode()


def _diff(source: CliInput, result: Result, changed: ElfObject | None) -> Diff:
    from bpfpatch.report import diff_programs  # noqa: PLC0415 - few ask for it

    return diff_programs(
        source.program,
        result.program,
        result.remap,
        old_names=source.names,
        new_names={} if changed is None else reference_names(changed),
    )


def rewrite_json(
    shown: str, output: str | None, done: Rewrite, verdicts: list[Verdict] | None
) -> dict[str, Any]:
    """What was done, with the keys that docs/cli.md promises."""
    out = {
        "file": shown,
        "output": output,
        **report_json(done.result.report),
        "bytes": len(done.data),
        "notices": list(done.notices),
    }
    if done.diff is not None:
        out["diff"] = done.diff.to_json()
    if verdicts is not None:
        out["verify"] = [verdict.to_json() for verdict in verdicts]
    return out


def report_json(report: Report) -> dict[str, Any]:
    """A pipeline's report with the keys that docs/cli.md promises."""
    return {
        "insns_before": report.n_before,
        "insns_after": report.n_after,
        "jumps_moved": report.jumps_moved,
        "rows_moved": report.rows_moved,
        "rows_gone": report.rows_gone,
        "milliseconds": round(report.milliseconds, 3),
        "passes": [
            {
                "pass": one.text,
                "inserted": one.inserted,
                "deleted": one.deleted,
                "modified": one.modified,
                "milliseconds": round(one.milliseconds, 3),
                "counts": dict(one.counts),
            }
            for one in report.passes
        ],
    }


def tell_rewrite(shown: str, done: Rewrite, *, with_report: bool) -> None:
    """The report and the notices, on the standard error."""
    report = done.result.report
    for one in report.passes if with_report else ():
        echo(
            f"  {one.text}: {one.inserted} inserted, {one.deleted} deleted, "
            f"{one.modified} changed, {one.milliseconds:.1f} ms",
            err=True,
        )
        for what, times in one.counts.items():
            echo(f"    {what}: {times}", err=True)
    echo(f"{shown}: {report}", err=True)
    for notice in done.notices:
        echo(f"{shown}: note: {notice}", err=True)
