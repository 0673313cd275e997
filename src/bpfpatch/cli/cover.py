"""``bpfpatch cover``: make an object count what runs, run one, and report."""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

from bpfpatch.coverage import collect, cover_map
from bpfpatch.coverage.run import instrumented
from bpfpatch.elf import ElfObject, Setup
from bpfpatch.elf.files import write_all
from bpfpatch.passes import Pipeline, Result, Target
from bpfpatch.passes.cover import Cover
from bpfpatch.passes.cover.mapping import COUNTING
from bpfpatch.text import plural

from .counting import AskedRun, run_counting
from .cover_config import InstrumentCommand, config_option
from .exec_inputs import run_options
from .failure import Command, blame
from .inputs import check_terminal, read_object
from .options import cpu_option, dwarf_option
from .screen import echo, patience
from .setup import setup_options

_DEFAULT: Final = "instrument"
_COMMANDS: Final = {
    _DEFAULT: ("bpfpatch.cli.cover", "Make an object that counts."),
    "run": ("bpfpatch.cli.cover", "Run a program on input, and save what was counted."),
    "report": ("bpfpatch.cli.cover_report", "Say what ran, from saved counters or live ones."),
}
"""Each command's module, and what it does."""

EPILOG: Final = """\b
Examples:
  bpfpatch cover lb.o -o lb.cover.o
  bpfpatch cover run lb.cover.o --pcap traffic.pcap -o counters.json
  bpfpatch cover report lb.cover.o counters.json
  bpfpatch cover report lb.cover.o --prog-id 42 -o lb.html

\b
`bpfpatch cover OBJ` is `bpfpatch cover instrument OBJ`; of a file named like a
command say ./run. Load the new object as the old one, with libbpf, bpftool or
another loader: its counters are in a map of their own.
"""


class _Group(click.Group):
    """Commands that are imported when they are asked for; anything else is an object."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = {_DEFAULT: "instrument", "run": "run_command"}.get(cmd_name, "command")
        found = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in _COMMANDS and args[0] not in ctx.help_option_names:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(
    "cover",
    cls=_Group,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    options_metavar="",
    subcommand_metavar="OBJ -o OUT | COMMAND [ARGS]...",
)
def command() -> None:
    """Count which lines, branches and functions of an object run."""


_edges_option = click.option(
    "--edges/--no-edges",
    default=True,
    show_default=True,
    help="Tell both sides of every branch apart, at a few counters more.",
)


@click.command(_DEFAULT, cls=InstrumentCommand)
@click.argument("obj", metavar="OBJ")
@click.option("-o", "--output", metavar="OUT", required=True, help="File to write; - for stdout.")
@_edges_option
@click.option(
    "--count",
    type=click.Choice(COUNTING),
    default="atomic",
    show_default=True,
    help="How: plain loses counts where processors meet, percpu takes 16 bytes of stack.",
)
@click.option("--tree/--no-tree", default=True, help="Leave out counters that follow from others.")
@click.option("--strict", is_flag=True, help="Fail where something has no place for a counter.")
@cpu_option
@dwarf_option
@click.option("-q", "--quiet", is_flag=True, help="No report and no notices.")
@config_option
def instrument(
    *,
    obj: str,
    output: str,
    edges: bool,
    count: str,
    tree: bool,
    strict: bool,
    cpu: str | None,
    dwarf: Any,
    quiet: bool,
) -> None:
    """Write an object OUT that does what OBJ does, and counts what runs of it."""
    if not output:
        raise click.UsageError("-o takes the name of a file, or - for stdout, not nothing")
    check_terminal(output)
    where, found = read_object(obj)
    pipeline = Pipeline((Cover(edges=edges, count=count, tree=tree, strict=strict),))
    with blame(where), patience("instrumenting"):
        made, result = pipeline.run_object(found, Target.loadable(cpu=cpu), dwarf)
        said = _summary(made, result)  # before anything is written: it reads what reports will
        data = made.to_bytes()
    with blame("<stdout>" if output == "-" else output):
        write_all(output, data)
    if not quiet:
        for line in (*made.notices, *result.notices, said):
            echo(f"{where}: {line}", err=True)


def _summary(made: ElfObject, result: Result) -> str:
    cover = cover_map(made)
    n_blocks = sum(len(one.blocks) for one in cover.functions)
    report = result.report
    return (
        f"{cover.n_counters} counters in {cover.home} for {n_blocks} blocks of "
        f"{plural(len(cover.functions), 'function')}; {report.n_before} -> "
        f"{plural(report.n_after, 'instruction')}"
    )


RUN_EPILOG: Final = """\b
Examples:
  bpfpatch cover run lb.o --pcap traffic.pcap --object lb.cover.o -o counters.json
  bpfpatch cover run lb.cover.o --prog balance --hex 'ff ff ...' --mode jit -o counters.json

\b
An object that does not count yet is instrumented for the run; --object keeps
it, for `bpfpatch cover report`. Input is as for `bpfpatch exec`.
"""


@click.command("run", cls=Command, epilog=RUN_EPILOG)
@click.argument("obj", metavar="OBJ")
@run_options
@setup_options
@click.option("-o", "--output", metavar="OUT", required=True, help="File for the counters.")
@click.option("--object", "keep", metavar="FILE", help="Write the object that counted, too.")
@click.option("-q", "--quiet", is_flag=True, help="No report and no notices.")
def run_command(
    *,
    obj: str,
    output: str,
    keep: str | None,
    quiet: bool,
    setup: Setup,
    **options: Any,
) -> None:
    """Run a program of OBJ on given input, and save what it counted to OUT."""
    asked = AskedRun(**options)
    if (obj, asked.path, *asked.pcaps).count("-") > 1:
        raise click.UsageError("only one of the program and the input can come from stdin")
    if output == "-" == keep:
        raise click.UsageError("only one of --output and --object can go to stdout")
    asked.check_mode()
    where, found = read_object(obj)
    with blame(where):
        counting = instrumented(found)
    ran = run_counting(where, counting, asked, setup, quiet=quiet)
    _write(output, collect.save(ran.coverage))
    if keep is not None:
        _write(keep, counting.to_bytes())
    if not quiet:
        functions = ran.coverage.functions
        called = sum(bool(function.calls) for function in functions)
        told = f"{plural(ran.n_runs, 'run')}; {called} of {len(functions)} functions were called"
        for line in (*ran.coverage.notices, told):
            echo(f"{where}: {line}", err=True)


def _write(path: str, data: bytes) -> None:
    check_terminal(path)
    with blame("<stdout>" if path == "-" else path):
        write_all(path, data)
