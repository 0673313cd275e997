"""``bpfpatch intercept``: rewrite what any command loads."""

from __future__ import annotations

import errno
from typing import Final

import click

from bpfpatch.errors import BpfPatchError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.intercept import Choice, Rewriter
from bpfpatch.passes import Pipeline, Target

from .failure import Command, Failure
from .intercept_log import Log
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
  bpfpatch intercept --log loads.txt -- bpftrace -e 'BEGIN { exit(); }'

\b
Without a pipeline it lists what the command loads. Exit status: the command's;
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
@click.option("--prog", "names", metavar="GLOB", multiple=True, help="Only programs so named.")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only programs of this type.")
@cpu_option
@plugin_option
@click.option("--log", "log_path", metavar="FILE", help="Where messages go; stderr otherwise.")
@click.option("-v", "--verbose", is_flag=True, help="List each load, also where it is rewritten.")
@click.option("-q", "--quiet", is_flag=True, help="No count of the loads at the end.")
@click.argument("argv", metavar="-- COMMAND [ARG]...", nargs=-1, type=click.UNPROCESSED)
def command(
    *,
    text: str | None,
    names: tuple[str, ...],
    types: tuple[str, ...],
    cpu: str | None,
    plugins: tuple[str, ...],
    log_path: str | None,
    verbose: bool,
    quiet: bool,
    argv: tuple[str, ...],
) -> int:
    """Run COMMAND, and rewrite the programs that it and all that it starts load."""
    if not argv:
        raise click.UsageError("which command? Give it after --")
    load_plugins(plugins)
    try:
        choice = Choice(names, frozenset(ProgType.of(name) for name in types))
        pipeline = None if text is None else Pipeline.parse(text)
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    on_load = None if pipeline is None else Rewriter(pipeline, choice, Target.loadable(cpu=cpu))
    log = _open(log_path, has_loads=verbose or pipeline is None)
    try:
        status = supervise(argv, on_load, log.done, None, log.say)
        if not quiet:
            log.sum_up()
    except OSError as error:
        if error.filename != argv[0]:
            raise
        return _not_started(error)
    except BpfPatchError as error:
        raise _Own("intercept", str(error)) from error
    finally:
        log.close()
    return end_like(status)


def _open(path: str | None, *, has_loads: bool) -> Log:
    try:
        return Log(path, has_loads=has_loads)
    except OSError as error:
        raise _Own(path or "<stderr>", error.strerror or str(error)) from error


def _not_started(error: OSError) -> int:
    """Say why, and return what env(1) and shells do then."""
    Failure(error.filename, error.strerror or str(error)).show()
    return _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE
