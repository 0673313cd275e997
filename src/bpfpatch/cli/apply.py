"""``bpfpatch apply``: rewrite an object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError
from bpfpatch.isa import ByteOrder
from bpfpatch.passes import Pipeline, Target

from .apply_folder import check_folder, rewrite_folder
from .failure import Command, blame
from .inputs import check_terminal, endian_option, format_option, read_input
from .options import Real, cpu_option, dwarf_option, relax_option
from .plugins import load_plugins, plugin_option
from .rewriting import Rewrite, Rewriting, rewrite_json, tell_rewrite
from .screen import echo, echo_diff, echo_json
from .values import given_values, value_options

if TYPE_CHECKING:
    from bpfpatch.verify import Verdict

EPILOG: Final = """\b
Examples:
  bpfpatch apply -p dce,nops lb.o -o lb.small.o
  bpfpatch apply -p 'sprinkle{every=2,seed=7}' lb.o -o - | bpfpatch info -
  bpfpatch apply --plugin count.py -p count-calls lb.o -o lb.o
  bpfpatch apply -p dce lb.o --diff
  bpfpatch apply --set enable_ipv6=0 --set limits.max=10 lb.o -o lb.mine.o
  bpfpatch apply --set enable_ipv6=0 -p 'const,dce{maps=true},nops' lb.o -o lb.mine.o
  bpfpatch apply -p dce,nops objects/ -o small/
  bpfpatch apply -p dce,nops lb.o -o lb.small.o --verify --verify-seconds 2

\b
Without a pipeline the object is written as it is. Without -o nothing is
written. On any error, nothing is written and an existing file stays. Of a
folder every object is rewritten into the folder OUT, under its own name.
"""


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
    _check_output(output, with_diff=with_diff, with_report=with_report, as_json=as_json)
    bounds = {"seconds": verify_seconds, "runs": verify_runs}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    if bounds and not with_verify:
        raise click.UsageError(f"--verify-{next(iter(bounds))} is of --verify: give that, too")
    is_folder = Path(obj).is_dir()
    if is_folder:
        check_folder(obj, output, wanted, with_diff=with_diff)
    load_plugins(plugins)
    asked = Rewriting(
        pipeline=_pipeline(text),
        values=given_values(texts, set_files, set_writable=set_writable),
        target=Target.loadable(cpu=cpu),
        dwarf=dwarf,
        relax=None if no_relax else "auto",
        with_diff=with_diff,
        load_check=load_check,
        bounds=bounds if with_verify else None,
        quiet=quiet,
    )
    if is_folder:
        rewrite_folder(asked, obj, output, with_report=with_report, as_json=as_json)
        return
    source = read_input(obj, wanted, endian)
    done, verdicts = asked.of(source)
    if output is not None:
        with blame("<stdout>" if output == "-" else output):
            write_all(output, done.data)
    if as_json:
        echo_json(rewrite_json(source.shown, output, done, verdicts))
    elif done.diff is not None:
        echo_diff(done.diff.lines())
    if not quiet:
        _tell(source.shown, done, verdicts, with_report=with_report)


def _check_output(output: str | None, *, with_diff: bool, with_report: bool, as_json: bool) -> None:
    if output is None and not (with_diff or with_report or as_json):
        raise click.UsageError("where to? -o OUT, or --diff, --report or --json to look only")
    if output == "":
        raise click.UsageError("-o takes the name of a file, or - for stdout, not nothing")
    if output == "-" and (with_diff or as_json):
        raise click.UsageError("--diff and --json print to stdout, and so does -o -")
    if output is not None:
        check_terminal(output)


def _tell(shown: str, done: Rewrite, verdicts: list[Verdict] | None, *, with_report: bool) -> None:
    tell_rewrite(shown, done, with_report=with_report)
    for verdict in verdicts or ():
        for line in verdict.lines():
            echo(f"{shown}: {line}", err=True)


def _pipeline(text: str) -> Pipeline:
    try:
        return Pipeline.parse(text)
    except OptionError as error:
        raise click.BadParameter(str(error), param_hint="-p") from error
