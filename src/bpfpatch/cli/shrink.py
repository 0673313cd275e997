"""``bpfpatch shrink``: make an object smaller, with the running kernel as judge."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import click

from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.loader.guess import named_type
from bpfpatch.passes import Target
from bpfpatch.shrink import ShrinkReport, shrink_object
from bpfpatch.shrink.search import Wish

from .failure import Command, blame
from .inputs import check_terminal, read_object
from .options import Real, cpu_option, dwarf_option
from .screen import echo, echo_json, echo_table, patience

EPILOG: Final = """\b
Examples:
  bpfpatch shrink lb.o -o lb.small.o
  bpfpatch shrink --type classifier bpf_lxc.o -o bpf_lxc.small.o
  bpfpatch shrink --no-kernel lb.o -o lb.small.o
  bpfpatch shrink --rules mine.rules lb.o -o lb.small.o --json

\b
Every program that loads is loaded again as it has become. What makes one not
load any more, or costs the verifier over 1 % more instructions, is found and
left out. Programs that do not load here, and all without the right to call
bpf(2), are shrunk by steps only that take nothing from any verifier.
"""


@click.command("shrink", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="OBJ")
@click.option("-o", "--output", metavar="OUT", help="File to write; - for stdout.")
@click.option("--type", "kind", metavar="TYPE", help="Kind of all programs: xdp, classifier, ...")
@click.option("--no-kernel", is_flag=True, help="Do not load anything; take safe steps only.")
@click.option("--rules", metavar="FILE", help="Further rules for peephole; z3 proves them.")
@click.option("--skip", metavar="NAME+NAME", help="Steps and rules to leave out.")
@click.option(
    "--seconds",
    type=Real(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Most time to look for what to leave out; after that, whole functions are.",
)
@cpu_option
@dwarf_option
@click.option("-q", "--quiet", is_flag=True, help="No report.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    *,
    obj: str,
    output: str | None,
    kind: str | None,
    no_kernel: bool,
    rules: str | None,
    skip: str | None,
    seconds: float,
    cpu: str | None,
    dwarf: Any,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make OBJ smaller and write the result to OUT; the report says by what."""
    if output == "-" and as_json:
        raise click.UsageError("--json prints to stdout, and so does -o -")
    if output is not None:
        check_terminal(output)
    prog_type = _type(kind)
    wish = Wish(skip, rules, Target.loadable(cpu), seconds, dwarf)
    shown, source = read_object(obj)
    with blame(shown), patience("shrinking"):
        done = shrink_object(
            source,
            name=shown,
            prog_type=prog_type,
            asks_kernel=not no_kernel,
            wish=wish,
            progress=_progress(shown),
        )
    if output is not None:
        with blame("<stdout>" if output == "-" else output):
            write_all(output, done.obj.to_bytes())
    if as_json:
        echo_json({"file": shown, "output": output, **done.report.to_json()})
    elif not quiet:
        _tell(shown, done.report, is_apart=output == "-")


def _type(kind: str | None) -> ProgType | None:
    try:
        return None if kind is None else named_type(kind)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="--type") from error


def _progress(shown: str) -> Callable[[str], None] | None:
    """What goes on, on a terminal."""
    if not sys.stderr.isatty():
        return None
    return lambda text: echo(f"{shown}: {text}", err=True)


def _tell(shown: str, report: ShrinkReport, *, is_apart: bool) -> None:
    """The tables on stdout, unless that has the object; the rest on the standard error."""
    if not is_apart:
        rows = [
            (row.name, row.slots_before, row.slots_after, " ".join(row.undone))
            for row in report.functions
            if row.slots_before != row.slots_after or row.undone
        ]
        echo_table("functions", ("function", "before#", "after#", "left out"), rows)
        steps = [(name, count) for name, count in report.steps.items() if count]
        echo_table("steps", ("step", "fewer#"), steps)
        if report.rules:
            echo_table("rules of peephole", ("rule", "times#"), list(report.rules.items()))
        if report.programs:
            programs = [
                (one.name, _count(one.verified_before), _count(one.verified_after), one.reason)
                for one in report.programs
            ]
            names = ("program", "verified before#", "after#", "does not load")
            echo_table("programs", names, programs)
    for line in (*report.undone, *report.notices):
        echo(f"{shown}: note: {line}", err=True)
    echo(f"{shown}: {report}", err=True)


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)
