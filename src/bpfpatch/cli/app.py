"""The command group, and what becomes of errors."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

import click
from click.shell_completion import CompletionItem

from bpfpatch._version import __version__
from bpfpatch.text import unknown

from . import INTERRUPTED, stop_at_once
from .failure import forget_stdout

BUG: Final = 3
TERMINATED: Final = 128 + signal.SIGTERM

COMMANDS: Final = {
    "apply": "Rewrite an object with a pipeline of passes.",
    "conform": "Run a program as a plugin of the bpf_conformance suite.",
    "cover": "Count which lines, branches and functions of an object run.",
    "demo": "Rewrite a real XDP object, and run both on the same packets.",
    "diff": "Compare two objects, instruction by instruction.",
    "dump": "Print the instructions of an object.",
    "exec": "Run a program on packets or other input, interpreted or in the kernel.",
    "extract": "Find the BPF objects that are embedded in a program.",
    "info": "Say what an object holds.",
    "intercept": "Rewrite the programs that any command loads, while it loads them.",
    "kernel-diff": "Compare what the running kernel makes of programs with what we do.",
    "load": "Load programs, and say what the verifier made of them.",
    "passes": "List the passes that a pipeline can have.",
    "profile": "Say where an instrumented object spends its instructions.",
    "repair": "Mend programs that the verifier refuses although they are right.",
    "rules": "List the rules of the pass peephole, and prove them.",
    "shrink": "Make an object smaller, with the running kernel as judge.",
    "trace": "Print registers at places of an object, or read what it sent.",
    "verify": "Run two objects on made inputs, and look for where they differ.",
}
"""Each command is the ``command`` of the module of its name (``-`` is ``_`` there), imported when
it is used."""

EXAMPLES: Final = """\b
Examples:
  bpfpatch info lb.o
  bpfpatch apply -p dce,nops lb.o -o lb.small.o
  bpfpatch diff lb.o lb.small.o
  bpfpatch extract /usr/sbin/opensnoop-bpfcc -o objects/

\b
Exit status: 0 done, 1 failed, 2 wrong arguments, 3 a bug in bpfpatch.
`diff`, `kernel-diff` and `verify` have that of diff(1): 0 no difference, 1 some, 2 failed.
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for: NumPy takes a while."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, by name."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(_module(cmd_name)).command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; one that is not there, with those alike."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options that begin so, without importing any command."""
        if incomplete and not incomplete[0].isalnum():
            return click.Command.shell_complete(self, ctx, incomplete)
        found = [(name, what) for name, what in COMMANDS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=what) for name, what in found]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _module(cmd_name: str) -> str:
    return f"bpfpatch.cli.{cmd_name.replace('-', '_')}"


@click.group(
    "bpfpatch",
    cls=LazyGroup,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="bpfpatch")
def cli() -> None:
    """Rewrite compiled eBPF programs to any length, with everything in them consistent."""


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        args: the arguments; None for those of the process.

    Returns:
        The exit status.
    """
    before = len(_written())
    try:
        with _signals():
            result = cli.main(args, prog_name="bpfpatch", standalone_mode=False)
            sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write(f"bpfpatch: interrupted{_so_far(before)}\n")
        return INTERRUPTED
    except _TerminatedError:
        sys.stderr.write(f"bpfpatch: terminated{_so_far(before)}\n")
        return TERMINATED
    except ModuleNotFoundError:
        raise
    except OSError as error:  # commands take care of their own: this was a help text
        sys.stderr.write(f"bpfpatch: <stdout>: {error.strerror or error}\n")
        forget_stdout()
        return 1
    except Exception as error:  # a bug: say so, in one line unless asked for more
        if os.environ.get("BPFPATCH_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(
            f"bpfpatch: internal error, please report it: {type(error).__name__}: {error}"
            " (BPFPATCH_DEBUG=1 shows where)\n"
        )
        return BUG
    return result if isinstance(result, int) else 0


class _TerminatedError(BaseException):
    """SIGTERM, as an exception: what is half done is undone on the way out."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise _TerminatedError


@contextmanager
def _signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into exceptions for the length of a command."""
    is_ours = signal.getsignal(signal.SIGINT) is stop_at_once
    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if is_default:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if is_default:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _so_far(before: int) -> str:
    """What is there in spite of an interruption."""
    written = _written()[before:]
    return f" after {', '.join(written)} was written" if written else ""


def _written() -> list[str]:
    files = sys.modules.get("bpfpatch.elf.files")  # not there yet: nothing was written
    found: list[str] = getattr(files, "written", [])
    return found
