"""``bpfpatch diff``: compare two objects."""

from __future__ import annotations

from typing import Final

import click

from bpfpatch.isa import ByteOrder
from bpfpatch.report import Op, diff_programs
from bpfpatch.text import plural

from .failure import Command, Failure, blame
from .inputs import endian_option, format_option, read_input
from .loaded import check_count, list_folders, loaded_options, loaded_programs
from .options import context_option
from .screen import echo, echo_diff, echo_json, patience

DIFFERENT: Final = 1

EPILOG: Final = """\b
Examples:
  bpfpatch diff lb.o lb.small.o
  bpfpatch diff --all --context 10 lb.o lb.small.o
  bpfpatch diff --html change.html lb.o lb.small.o
  bpfpatch diff --prog-id 42 --prog-id 43

\b
--prog-id and --pin stand for A and B where these are missing. Jumps and calls
that lead to the same place count as equal, however far it is.
Exit status: 0 no difference, 1 some, 2 failed or wrong arguments.
"""


class Trouble(Failure):
    """A failure with the exit status of diff(1), which keeps 1 for a difference."""

    exit_code = 2


class DiffCommand(Command):
    """A command whose failures are `Trouble`."""

    failure = Trouble


@click.command("diff", cls=DiffCommand, epilog=EPILOG)
@click.argument("a", metavar="[A]", required=False)
@click.argument("b", metavar="[B]", required=False)
@loaded_options
@context_option("change")
@click.option("--all", "show_all", is_flag=True, help="Show all instructions.")
@click.option("-q", "--quiet", "brief", is_flag=True, help="Only say whether they differ.")
@click.option("--html", metavar="FILE", help="Write a page, too; it needs no other file.")
@format_option
@endian_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    a: str | None,
    b: str | None,
    prog_ids: tuple[int, ...],
    pins: tuple[str, ...],
    context: int,
    html: str | None,
    wanted: str,
    endian: ByteOrder,
    show_all: bool,
    brief: bool,
    as_json: bool,
) -> None:
    """Compare the instructions of A and B, function by function; one of them may be -."""
    if a == b == "-":
        raise click.UsageError("only one of A and B can be stdin")
    if list_folders(pins, as_json=as_json):
        return
    check_count([a, b], prog_ids, pins, 2)
    files = [read_input(path, wanted, endian) for path in (a, b) if path is not None]
    old, new = [*files, *loaded_programs(prog_ids, pins)]
    with patience("comparing"):
        diff = diff_programs(old.program, new.program, old_names=old.names, new_names=new.names)
    if html is not None:
        with blame(html):
            diff.write_html(html, f"{old.shown} and {new.shown}", context)
    if as_json:
        echo_json({"old": old.shown, "new": new.shown, **diff.to_json()})
    elif not brief:
        if not diff.is_equal:
            echo(f"--- {old.shown}")
            echo(f"+++ {new.shown}")
        echo_diff(diff.lines(context, show_all=show_all))
    elif not diff.is_equal:
        echo(
            f"{old.shown} and {new.shown} differ: "
            f"{plural(diff.count(Op.ADDED), 'instruction')} added, "
            f"{diff.count(Op.REMOVED)} removed, {diff.count(Op.CHANGED)} changed"
        )
    if not diff.is_equal:
        raise click.exceptions.Exit(DIFFERENT)
