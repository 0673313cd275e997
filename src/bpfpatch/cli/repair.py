"""``bpfpatch repair``: mend programs that the verifier refuses although they are right."""

from __future__ import annotations

from typing import Any, Final

import click

from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.loader.guess import named_type
from bpfpatch.repair import Limits, Repaired, repair
from bpfpatch.repair.check import check, is_fired
from bpfpatch.verify import Verdict

from .failure import Command, Failure, blame
from .inputs import check_terminal, read_object, reference_names
from .options import Real, dwarf_option
from .screen import echo, echo_diff, echo_json, patience

EPILOG: Final = """\b
Examples:
  bpfpatch repair lb.o -o lb.loads.o
  bpfpatch repair --type classifier bpf_lxc.o --dry-run
  bpfpatch repair --count-guards --on-guard return=1 lb.o -o lb.loads.o

\b
Loads, reads what the verifier refuses, mends that, and loads again. What is
mended changes nothing, or is a check at the access that the verifier complains
about: docs/repair.md has the rules. Nothing is written unless all programs
load, and none was seen to behave in another way. Needs the right to call bpf(2).
Exit status: 0 all programs load, 1 some do not, 2 wrong arguments.
"""


@click.command("repair", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="OBJ")
@click.option("-o", "--output", metavar="OUT", help="File to write; - for stdout.")
@click.option("--type", "kind", metavar="TYPE", help="Kind of all programs: xdp, classifier, ...")
@click.option("--dry-run", is_flag=True, help="Print what would change; write nothing.")
@click.option(
    "--count-guards",
    "count",
    is_flag=True,
    help="Count guards that fire, in variable bpfpatch_guards.",
)
@click.option(
    "--on-guard",
    metavar="return=VALUE",
    help="What a program returns where a guard fires.  [default: what drops the packet, or 0]",
)
@click.option(
    "--seconds",
    type=Real(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Most time for mending.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Most mendings for one program.",
)
@click.option(
    "--insns",
    type=click.IntRange(min=1),
    default=4096,
    show_default=True,
    help="Most instructions that are added.",
)
@click.option(
    "--verify-seconds",
    type=Real(min=0),
    default=1.0,
    show_default=True,
    help="Most time to run each mended program against what it was; 0 for not at all.",
)
@dwarf_option
@click.option("-q", "--quiet", is_flag=True, help="No report.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    *,
    obj: str,
    output: str | None,
    kind: str | None,
    dry_run: bool,
    count: bool,
    on_guard: str | None,
    seconds: float,
    rounds: int,
    insns: int,
    verify_seconds: float,
    dwarf: Any,
    quiet: bool,
    as_json: bool,
) -> None:
    """Mend the programs of OBJ that the running kernel refuses, and write the result to OUT."""
    if output is None and not (dry_run or as_json):
        raise click.UsageError("where to? -o OUT, or --dry-run or --json to look only")
    if output == "-" and (dry_run or as_json):
        raise click.UsageError("--dry-run and --json print to stdout, and so does -o -")
    if output is not None:
        check_terminal(output)
    prog_type = _type(kind)
    shown, source = read_object(obj)
    with blame(shown), patience("repairing"):
        done = repair(
            source,
            name=shown,
            prog_type=prog_type,
            on_guard=_value(on_guard),
            count=count,
            dwarf=dwarf,
            limits=Limits(seconds, rounds, insns),
        )
    verdicts = _verified(shown, source, done, prog_type, verify_seconds)
    if done.report.is_whole and output is not None and not dry_run:
        assert done.obj is not None
        with blame("<stdout>" if output == "-" else output):
            write_all(output, done.obj.to_bytes())
    if as_json:
        out = {"file": shown, "output": output, **done.report.to_json()}
        out["verify"] = [verdict.to_json() for verdict in verdicts]
        echo_json(out)
    elif dry_run:
        _diff(source, done)
    if not quiet:
        for line in done.report.lines():
            echo(f"{shown}: {line}", err=True)
        for verdict in verdicts:
            echo(f"{shown}: {verdict}", err=True)
    if not done.report.is_whole:
        if not quiet:
            echo(f"{shown}: nothing is written, since not all programs load", err=True)
        raise click.exceptions.Exit(1)


def _type(kind: str | None) -> ProgType | None:
    try:
        return None if kind is None else named_type(kind)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="--type") from error


def _value(text: str | None) -> int | None:
    """What ``return=VALUE`` says."""
    if text is None:
        return None
    word, _, value = text.partition("=")
    try:
        number = int(value, 0)
    except ValueError:
        word = ""
        number = 0
    if word != "return" or not -(1 << 31) <= number < 1 << 31:
        raise click.BadParameter("give return=VALUE, a number of 32 bits", param_hint="--on-guard")
    return number


def _verified(
    shown: str, source: ElfObject, done: Repaired, prog_type: ProgType | None, seconds: float
) -> list[Verdict]:
    """Verdicts on all programs that were mended.

    Raises:
        Failure: one behaves in another way.
    """
    if not seconds or not done.report.is_whole:
        return []
    out: list[Verdict] = []
    verdicts = check(source, done, prog_type, seconds)
    while True:
        with patience("verifying"):
            verdict = next(verdicts, None)
        if verdict is None:
            return out
        if verdict.differs and not is_fired(verdict):
            raise Failure(shown, *verdict.lines(), "nothing is written")
        out.append(verdict)


def _diff(source: ElfObject, done: Repaired) -> None:
    from bpfpatch.report import diff_programs  # noqa: PLC0415 - few ask for it

    names = {} if done.obj is None else reference_names(done.obj)
    program, remap = done.code
    diff = diff_programs(
        source.code, program, remap, old_names=reference_names(source), new_names=names
    )
    echo_diff(diff.lines())
