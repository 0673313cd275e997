"""``bpfpatch apply``: rewrite an object."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError
from bpfpatch.isa import ByteOrder
from bpfpatch.passes import Pass, Pipeline, Report, Result, Target
from bpfpatch.patch import How
from bpfpatch.program import Program

from .failure import Command, Failure, blame
from .inputs import (
    CliInput,
    check_terminal,
    endian_option,
    format_option,
    read_input,
    reference_names,
)
from .options import Real, cpu_option, dwarf_option, relax_option
from .plugins import blame_pass, load_plugins, plugin_option
from .screen import echo, echo_diff, echo_json, patience
from .values import given_values, value_options

if TYPE_CHECKING:
    from bpfpatch.report import Diff
    from bpfpatch.verify import Verdict

EPILOG: Final = """\b
Examples:
  bpfpatch apply -p dce,nops lb.o -o lb.small.o
  bpfpatch apply -p 'sprinkle{every=2,seed=7}' lb.o -o - | bpfpatch info -
  bpfpatch apply --plugin count.py -p count-calls lb.o -o lb.o
  bpfpatch apply -p dce lb.o --diff
  bpfpatch apply --set enable_ipv6=0 --set limits.max=10 lb.o -o lb.mine.o
  bpfpatch apply --set enable_ipv6=0 -p 'const,dce{maps=true},nops' lb.o -o lb.mine.o
  bpfpatch apply -p dce,nops lb.o -o lb.small.o --verify --verify-seconds 2

Without a pipeline the object is written as it is. Without -o nothing is
written. On any error, nothing is written and an existing file stays.
"""


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


@click.command("apply", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="OBJ")
@click.option("-p", "--pipeline", "text", metavar="PIPELINE", default="", help="Passes to run.")
@click.option("-o", "--output", metavar="OUT", help="File to write; - for stdout.")
@value_options
@cpu_option
@relax_option
@dwarf_option
@plugin_option
@click.option("--diff", "with_diff", is_flag=True, help="Print what changed.")
@click.option(
    "--verify",
    "with_verify",
    is_flag=True,
    help="Run each program before and after; write nothing if any differs.",
)
@click.option(
    "--verify-seconds",
    type=Real(min=0, min_open=True),
    show_default="10",
    help="Most time for each program, with --verify.",
)
@click.option(
    "--verify-runs",
    type=click.IntRange(min=1),
    show_default="100000",
    help="Most inputs for each program, with --verify.",
)
@click.option(
    "--load-check",
    is_flag=True,
    help="Load each program; mend what the kernel refuses, as `repair` does.",
)
@click.option("--report", "with_report", is_flag=True, help="Report on each pass.")
@click.option("-q", "--quiet", is_flag=True, help="No report and no notices.")
@format_option
@endian_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    *,
    obj: str,
    text: str,
    output: str | None,
    texts: tuple[str, ...],
    set_files: tuple[str, ...],
    set_writable: bool,
    cpu: str | None,
    no_relax: bool,
    dwarf: Any,
    plugins: tuple[str, ...],
    wanted: str,
    endian: ByteOrder,
    with_diff: bool,
    load_check: bool,
    with_report: bool,
    with_verify: bool,
    verify_seconds: float | None,
    verify_runs: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a PIPELINE of passes over OBJ and write the result to OUT; - is stdin and stdout."""
    if output is None and not (with_diff or with_report or as_json):
        raise click.UsageError("where to? -o OUT, or --diff, --report or --json to look only")
    if output == "":
        raise click.UsageError("-o takes the name of a file, or - for stdout, not nothing")
    if output == "-" and (with_diff or as_json):
        raise click.UsageError("--diff and --json print to stdout, and so does -o -")
    bounds = {"seconds": verify_seconds, "runs": verify_runs}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    if bounds and not with_verify:
        raise click.UsageError(f"--verify-{next(iter(bounds))} is of --verify: give that, too")
    if output is not None:
        check_terminal(output)
    load_plugins(plugins)
    pipeline = _pipeline(text)
    values = given_values(texts, set_files, set_writable=set_writable)
    source = values.into_input(read_input(obj, wanted, endian))
    with blame(source.shown), patience("rewriting"):
        made = _run(source, pipeline, Target.loadable(cpu=cpu), dwarf, None if no_relax else "auto")
        done = _rewrite(source, *made, with_diff=with_diff)
    if load_check:
        done = _load_checked(source, done, dwarf, quiet=quiet)
    verdicts = list(_verified(source, done, bounds)) if with_verify else None
    if output is not None:
        with blame("<stdout>" if output == "-" else output):
            write_all(output, done.data)
    if as_json:
        echo_json(_json(source.shown, output, done, verdicts))
    elif done.diff is not None:
        echo_diff(done.diff.lines())
    if not quiet:
        _tell(source.shown, done, with_report=with_report)
        for verdict in verdicts or ():
            for line in verdict.lines():
                echo(f"{source.shown}: {line}", err=True)


def _pipeline(text: str) -> Pipeline:
    try:
        return Pipeline.parse(text)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="-p") from error


def _run(
    source: CliInput, pipeline: Pipeline, target: Target, dwarf: Any, relax: How | None
) -> tuple[ElfObject | None, Result]:
    running: list[Pass] = []
    with blame_pass(running):
        if source.obj is None:
            return None, pipeline.run(source.program, target, progress=running.append, relax=relax)
        return pipeline.run_object(source.obj, target, dwarf, running.append, relax)


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


def _tell(shown: str, done: Rewrite, *, with_report: bool) -> None:
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
    sys.stderr.flush()


def _json(
    shown: str, output: str | None, done: Rewrite, verdicts: list[Verdict] | None
) -> dict[str, Any]:
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
