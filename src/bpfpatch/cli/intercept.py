"""``bpfpatch intercept``: rewrite what any command loads."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Final

import click

from bpfpatch.bpf.intercept import LoadOutcome, OnDone, OnLoad
from bpfpatch.coverage.formats import format_of
from bpfpatch.errors import BpfPatchError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.intercept import Choice, Session, Wanted
from bpfpatch.passes import Pipeline, Target, Trace
from bpfpatch.passes.cover import Cover
from bpfpatch.passes.cover.mapping import COUNTING

from .failure import Command, Failure
from .intercept_log import Log
from .intercept_reports import Reports
from .options import cpu_option
from .plugins import load_plugins, plugin_option
from .supervise import end_like, supervise

_OURS: Final = 125
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127

EPILOG: Final = """\b
Examples:
  bpfpatch intercept -- xdp-loader load veth0 lb.o
  bpfpatch intercept -p 'sprinkle{every=4}' --type xdp -- ./loader
  bpfpatch intercept --cover lb.html --edges -- ./loader
  bpfpatch intercept --capture objects/ -- bpftrace -e 'BEGIN { exit(); }'

\b
With none of the above it lists what the command loads. SIGUSR1 writes the
report of --cover and --profile at once. Exit status: the command's;
127 and 126 where it is not found or cannot be executed, 125 where bpfpatch
cannot intercept it.
"""


class _Own(Failure):
    """A failure before the command was started."""

    exit_code = _OURS


class _Command(Command):
    failure = _Own


@click.command(
    "intercept",
    cls=_Command,
    epilog=EPILOG,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[WHAT]",
)
@click.option("-p", "--pipeline", "text", metavar="PIPELINE", help="Passes to run on each program.")
@click.option("--cover", "report", metavar="FILE", help="Report what runs: .html, .info, .xml...")
@click.option("--edges/--no-edges", help="With --cover: tell both sides of branches apart.")
@click.option(
    "--count",
    type=click.Choice(COUNTING),
    default="atomic",
    show_default=True,
    help="With --cover and --profile: how.",
)
@click.option("--profile", is_flag=True, help="Say where instructions were spent.")
@click.option("--trace", "places", metavar="PLACE", multiple=True, help="Tell each time there.")
@click.option("--regs", metavar="REGS", default="", help="With --trace: such as r1,r6; or all.")
@click.option("--repair", is_flag=True, help="Repair what the verifier refuses.")
@click.option("--why", is_flag=True, help="Say why the verifier refuses something.")
@click.option("--capture", "folder", metavar="DIR", help="Write each program as an object.")
@click.option("--prog", "names", metavar="GLOB", multiple=True, help="Only programs so named.")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only programs of this type.")
@cpu_option
@plugin_option
@click.option("--log", "log_path", metavar="FILE", help="Where messages go; stderr otherwise.")
@click.option("-v", "--verbose", is_flag=True, help="List each load, also with one of the above.")
@click.option("-q", "--quiet", is_flag=True, help="No count of the loads at the end.")
@click.argument("argv", metavar="-- COMMAND [ARG]...", nargs=-1, type=click.UNPROCESSED)
def command(
    *,
    report: str | None,
    profile: bool,
    plugins: tuple[str, ...],
    log_path: str | None,
    verbose: bool,
    quiet: bool,
    argv: tuple[str, ...],
    **options: Any,
) -> int:
    """Run COMMAND, and rewrite the programs that it and all that it starts load."""
    if not argv:
        raise click.UsageError("which command? Give it after --")
    if report is not None and format_of(report) is None:
        raise click.UsageError(
            f"what to write to {report}? Its name ends in .html, .info, .xml or .json"
        )
    load_plugins(plugins)
    try:
        wanted = _wanted(has_cover=report is not None or profile, **options)
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    log = _open(log_path, has_loads=verbose or wanted.is_nothing)
    session = Session(wanted, log.once, log.say)
    reports = Reports(session, log, report, has_profile=profile)
    try:
        status = supervise(argv, *_functions(session, log, wanted), reports.on_signal, log.say)
        session.finish()
        reports.write()
        if not quiet:
            log.sum_up()
    except OSError as error:
        if error.filename != argv[0]:
            raise
        return _not_started(error)
    except BpfPatchError as error:
        raise _Own("intercept", str(error)) from error
    finally:
        session.close()
        log.close()
    return end_like(status)


def _wanted(
    *,
    text: str | None,
    edges: bool,
    count: str,
    places: tuple[str, ...],
    regs: str,
    repair: bool,
    why: bool,
    folder: str | None,
    names: tuple[str, ...],
    types: tuple[str, ...],
    cpu: str | None,
    has_cover: bool,
) -> Wanted:
    """What to do, from the options.

    Raises:
        OptionError: they make no sense.
    """
    if edges and not has_cover:
        raise OptionError("--edges is of --cover: give that, too")
    if regs and not places:
        raise OptionError("--regs is of --trace: give that, too")
    chosen = "+".join(regs.replace(",", " ").split())
    return Wanted(
        Choice(names, frozenset(ProgType.of(name) for name in types)),
        () if text is None else Pipeline.parse(text).passes,
        Cover(edges=edges, count=count) if has_cover else None,
        tuple(Trace(at, chosen, to="ring") for at in places),
        None if folder is None else _folder(folder),
        why,
        repair,
        Target.loadable(cpu=cpu),
    )


def _folder(path: str) -> Path:
    out = Path(path)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror}") from error
    return out


def _functions(session: Session, log: Log, wanted: Wanted) -> tuple[OnLoad | None, OnDone]:
    def on_done(outcome: LoadOutcome) -> None:
        session.on_done(outcome)
        log.done(outcome)

    return None if wanted.is_nothing else session.on_load, on_done


def _open(path: str | None, *, has_loads: bool) -> Log:
    try:
        return Log(path, has_loads=has_loads)
    except OSError as error:
        raise _Own(path or "<stderr>", error.strerror or str(error)) from error


def _not_started(error: OSError) -> int:
    """Say why, and return what env(1) and shells do then."""
    Failure(error.filename, error.strerror or str(error)).show()
    return _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE
