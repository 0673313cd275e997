"""``bpfpatch trace``: printf debugging of an object, and reading what it sent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import write_all
from bpfpatch.errors import OptionError
from bpfpatch.passes import Pipeline, Trace
from bpfpatch.passes.trace import MAP_NAME, TraceMap, TracePlace, TraceRecord, trace_map
from bpfpatch.text import visible

from .failure import Command, blame
from .inputs import check_terminal, read_object
from .loaded import list_folders
from .options import KERNEL_ID
from .screen import echo, patience

if TYPE_CHECKING:
    from bpfpatch.bpf.map import Map

PUT: Final = "put"

EPILOG: Final = """\b
Examples:
  bpfpatch trace lb.o --at lb.c:214 --regs r1,r6 -o lb.traced.o
  bpfpatch trace lb.o --at parse_ipv6 --message 'IPv6!' -o lb.traced.o
  bpfpatch trace lb.o --at parse_ipv6+12 --at '#812' --regs all --ring -o lb.traced.o
  bpfpatch trace read lb.traced.o --pin /sys/fs/bpf/lb --follow

\b
A place is FILE:LINE, FUNCTION (each call of it), FUNCTION+SLOT or #SLOT: in
front of that instruction. What is printed is in /sys/kernel/tracing/trace_pipe;
what is sent to the ring buffer, `bpfpatch trace read` prints.
"""

READ_EPILOG: Final = """\b
Examples:
  bpfpatch trace read lb.traced.o --pin /sys/fs/bpf/bpfpatch_trace
  bpfpatch trace read lb.traced.o --prog-id 41 --follow
  bpfpatch trace read lb.traced.o --id 17 --json

\b
Each record is there once: what was read is gone.
"""


class TraceGroup(click.Group):
    """A group whose first command needs no name: what is no command's name is an object."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the name that was left out."""
        is_help = bool(args) and args[0] in self.get_help_option_names(ctx)
        if args and args[0] not in self.commands and not is_help:
            args = [PUT, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both forms."""
        formatter.write_usage(ctx.command_path, "OBJ --at PLACE [OPTIONS] -o OUT")
        formatter.write_usage(ctx.command_path, "read TRACED_OBJ --pin PATH [OPTIONS]")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of both."""
        for name, title in ((PUT, "Options of OBJ"), ("read", "Options of read")):
            found = self.commands[name]
            with click.Context(found, info_name=name, parent=ctx) as inner:
                options = [
                    one for one in found.get_params(inner) if one.param_type_name == "option"
                ]
                rows = [one.get_help_record(inner) for one in options]
            with formatter.section(title):
                formatter.write_dl([row for row in rows if row is not None])


class PutCommand(Command):
    """The command whose name is left out."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write how it is called without its name."""
        path = ctx.command_path.removesuffix(f" {PUT}")
        formatter.write_usage(path, "OBJ --at PLACE [OPTIONS] -o OUT")


@click.group("trace", cls=TraceGroup, epilog=EPILOG)
def command() -> None:
    """Print registers at places of an object, or read what it sent."""


@command.command(PUT, cls=PutCommand, epilog=EPILOG, hidden=True)
@click.argument("obj", metavar="OBJ")
@click.option("--at", "places", metavar="PLACE", multiple=True, required=True, help="Where.")
@click.option("--regs", metavar="REGS", default="", help="Such as r1,r6; or all.")
@click.option("--message", metavar="TEXT", default="", help="What to print in front.")
@click.option("--ring", is_flag=True, help="Send to a ring buffer instead of printing.")
@click.option("--size", type=int, metavar="BYTES", help="Of the ring buffer.")
@click.option("-o", "--output", metavar="OUT", required=True, help="File to write; - for stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say what was done.")
def put(
    *,
    obj: str,
    places: tuple[str, ...],
    regs: str,
    message: str,
    ring: bool,
    size: int | None,
    output: str,
    quiet: bool,
) -> None:
    """Write OBJ to OUT with code that prints registers or a message at each PLACE."""
    if output == "":
        raise click.UsageError("-o takes the name of a file, or - for stdout, not nothing")
    check_terminal(output)
    if size is not None and not ring:
        raise click.UsageError("--size is of the ring buffer; give --ring, too")
    options: dict[str, Any] = {} if size is None else {"size": size}
    to = "ring" if ring else "pipe"
    try:
        regs = regs.replace(",", "+").replace(" ", "")
        passes = tuple(Trace(at, regs, message, to, **options) for at in places)
    except OptionError as error:
        raise click.UsageError(str(error)) from error
    shown, before = read_object(obj)
    with blame(shown), patience("rewriting"):
        after, _ = Pipeline(passes).run_object(before)
        data = after.to_bytes()
    with blame("<stdout>" if output == "-" else output):
        write_all(output, data)
    if not quiet:
        _tell(shown, before, after)


def _tell(shown: str, before: ElfObject, after: ElfObject) -> None:
    known = _places(before)
    new = {number: place for number, place in _places(after).items() if number not in known}
    for place in new.values():
        regs = ", ".join(f"r{register}" for register in place.registers) or "that it is reached"
        moved = "" if place.put == place.slot else f", taken in front of insn {place.put}"
        echo(f"{shown}: {place} (insn {place.slot} in {place.function}){moved}: {regs}", err=True)
    for notice in (*after.notices, *_missing_helpers(list(new.values()))):
        echo(f"{shown}: note: {notice}", err=True)


def _places(obj: ElfObject) -> dict[int, TracePlace]:
    try:
        return trace_map(obj).places
    except OptionError:
        return {}


def _missing_helpers(places: list[TracePlace]) -> Iterator[str]:
    """What this kernel does not let the programs call."""
    from bpfpatch import kernel  # noqa: PLC0415 - only to tell

    if kernel.available() is not None:
        return
    wanted = {(place.section, place.to) for place in places}
    for section, to in sorted(wanted):
        kind = kernel.section_kind(section).type
        helper = "ringbuf_output" if to == "ring" else "trace_printk"
        tried = kind is not None and kernel.has_prog_type(kind)
        if kind is not None and tried and not kernel.has_helper(kind, helper):
            yield f"this kernel lets no {kind.text} program call bpf_{helper}()"


@command.command("read", cls=Command, epilog=READ_EPILOG)
@click.argument("obj", metavar="TRACED_OBJ")
@click.option("--pin", metavar="PATH", help="Where the map or the program is pinned.")
@click.option("--id", "map_id", metavar="N", type=KERNEL_ID, help="The map, by its id.")
@click.option("--prog-id", metavar="N", type=KERNEL_ID, help="The program, by its id.")
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until interrupted.")
@click.option(
    "-n", "--max-records", "count", type=click.IntRange(min=1), help="Stop after so many records."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one record a line.")
def read(
    *,
    obj: str,
    pin: str | None,
    map_id: int | None,
    prog_id: int | None,
    follow: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Print what the ring buffer of a traced object holds."""
    from bpfpatch.bpf.ringbuf import RingReader  # noqa: PLC0415 - few ask for it

    if sum(one is not None for one in (pin, map_id, prog_id)) != 1:
        raise click.UsageError("which ring buffer? Give one of --pin, --id and --prog-id")
    if pin is not None and list_folders([pin], as_json=as_json):
        return
    shown, traced = read_object(obj)
    with blame(shown):
        meaning = trace_map(traced)
        _check_ring(meaning)
    where = pin or (f"map {map_id}" if map_id is not None else f"program {prog_id}")
    with ExitStack() as stack:
        with blame(where):
            ring = stack.enter_context(_ring(pin, map_id, prog_id))
            reader = stack.enter_context(RingReader(ring))
        left = count

        def check(data: bytes) -> None:
            """With the wrong object, records stay for whoever has the right one."""
            with blame(where):
                meaning.record(data, traced.byteorder)

        while True:
            for data in reader.read(check):
                record = meaning.record(data, traced.byteorder)
                click.echo(json.dumps(_json(record)) if as_json else visible(str(record)))
                left = None if left is None else left - 1
                if left == 0:
                    return
            if not follow:
                return
            sys.stdout.flush()
            reader.wait()


def _check_ring(meaning: TraceMap) -> None:
    if not any(place.to == "ring" for place in meaning.places.values()):
        raise OptionError(
            "the object prints to the trace pipe: see /sys/kernel/tracing/trace_pipe, or make "
            "it with --ring"
        )


def _ring(pin: str | None, map_id: int | None, prog_id: int | None) -> Map:
    """The ring buffer that the user means."""
    from bpfpatch.bpf.loaded import LoadedProgram  # noqa: PLC0415
    from bpfpatch.bpf.map import Map  # noqa: PLC0415
    from bpfpatch.bpf.pinned import pinned  # noqa: PLC0415 - see read()

    if pin is not None:
        kind, number = pinned(pin)
        map_id, prog_id = (number, None) if kind == "map" else (None, number)
    if map_id is not None:
        return Map.from_id(map_id)
    assert prog_id is not None
    with LoadedProgram.from_id(prog_id) as program:
        for one_id in program.info().map_ids.tolist():
            one = Map.from_id(one_id)
            if one.name == MAP_NAME:
                return one
            one.close()
    raise OptionError(f"the program has no map {MAP_NAME}: load the traced object")


def _json(record: TraceRecord) -> dict[str, Any]:
    place = record.place
    return {
        "time_ns": record.time_ns,
        "function": place.function,
        "file": place.file,
        "line": place.line,
        "slot": place.slot,
        "message": place.message,
        "registers": {
            f"r{register}": value
            for register, value in zip(place.registers, record.values, strict=True)
        },
    }
