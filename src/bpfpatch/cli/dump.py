"""``bpfpatch dump``: print instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import click
import numpy as np

from bpfpatch import isa
from bpfpatch.asm import format_insns, format_program, format_xlated
from bpfpatch.elf.files import write_all
from bpfpatch.isa import ByteOrder, Syntax
from bpfpatch.program import Program
from bpfpatch.report.dottext import picture
from bpfpatch.report.keys import function_name
from bpfpatch.text import unknown

from .failure import Command, Failure, blame
from .inputs import CliInput, endian_option, format_option, read_input
from .loaded import check_count, list_folders, loaded_options, loaded_programs
from .options import picture_name
from .screen import echo_json, echo_lines, patience

EPILOG: Final = """\b
Examples:
  bpfpatch dump lb.o
  bpfpatch dump lb.o --prog parse_ip4 --no-lines
  bpfpatch dump lb.o --link balancer --syntax xlated
  bpfpatch dump - --json < lb.o
  bpfpatch dump lb.o --prog parse_ip4 --cfg parse_ip4.svg
  bpfpatch dump --prog-id 42

The llvm syntax is what `bpfpatch apply` and clang read back.
"""

_SLOT: Final = re.compile(r" *(\d+):")

Span = tuple[int, int]


@click.command("dump", cls=Command, epilog=EPILOG)
@click.argument("obj", metavar="[OBJ]", required=False)
@loaded_options
@click.option("--section", metavar="NAME", help="Only this section.")
@click.option("--prog", metavar="NAME", help="Only this program or subprogram.")
@click.option("--link", metavar="NAME", help="The flat program that a loader would submit.")
@click.option(
    "--syntax",
    type=click.Choice(["llvm", "xlated"]),
    show_default="llvm; of a program in the kernel xlated",
    help="As llvm-objdump, or as the kernel and bpftool.",
)
@click.option("--raw", is_flag=True, help="Show the bytes, too.")
@click.option("--lines/--no-lines", default=True, show_default=True, help="Show source lines.")
@click.option(
    "--cfg",
    metavar="OUT",
    help="Draw the flow graph instead, to a file .svg or .dot; - prints it as text.",
)
@format_option
@endian_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    obj: str | None,
    prog_ids: tuple[int, ...],
    pins: tuple[str, ...],
    section: str | None,
    prog: str | None,
    link: str | None,
    syntax: str | None,
    raw: bool,
    lines: bool,
    cfg: str | None,
    wanted: str,
    endian: ByteOrder,
    as_json: bool,
) -> None:
    """Print the instructions of OBJ, an object, raw instructions or assembly; - is stdin."""
    if cfg is not None:
        picture_name(cfg)
    if list_folders(pins, as_json=as_json):
        return
    check_count([obj], prog_ids, pins, 1)
    (source,) = (
        loaded_programs(prog_ids, pins) if obj is None else [read_input(obj, wanted, endian)]
    )
    syntax = syntax or ("xlated" if source.format == "loaded" else "llvm")
    with blame(source.shown):
        program, names = _flat(source, link)
    span = _span(source.shown, program, section, prog)
    if cfg is not None:
        _draw(source, program, names, span, cfg)
    elif as_json:
        given = source.obj.file_insns if source.obj is not None and link is None else program.insns
        order = source.obj.byteorder if source.obj is not None else endian
        echo_json(_json(source, program, names, span, syntax, _Bytes(given, order)))
    elif syntax == "llvm":
        text = format_program(program, raw=raw, sources=lines)
        echo_lines(_only(text, span, names, to_end=span[1] == len(program)))
    else:
        echo_lines(_xlated(program, span, names, raw=raw, lines=lines))


def _draw(
    source: CliInput, program: Program, names: Mapping[int, str], span: Span, out: str
) -> None:
    starts = program.subprogs.start
    functions = np.flatnonzero((starts >= span[0]) & (starts < span[1])).tolist()
    with blame(source.shown), patience("drawing"):
        from bpfpatch.report.cfg import cfg_dot  # noqa: PLC0415 - for pictures only

        data = picture(cfg_dot(program, names, functions), out)
    with blame("<stdout>" if out == "-" else out):
        write_all(out, data)


def _flat(source: CliInput, link: str | None) -> tuple[Program, Mapping[int, str]]:
    """The program to show, and what its relocations refer to by slot."""
    if link is None:
        return source.program, source.names
    if source.obj is None:
        raise Failure(source.shown, "--link needs an object, and this is none")
    linked = source.obj.link(link)
    return linked.program, {row.slot: row.target.name for row in linked.relocations}


def _span(shown: str, program: Program, section: str | None, prog: str | None) -> Span:
    """First slot to show, and the end."""
    span = (0, len(program))
    if section is not None:
        if section not in program.sections:
            raise Failure(shown, unknown("code section", section, program.sections))
        bounds = program.section_bounds[program.sections.index(section) :]
        span = int(bounds[0]), int(bounds[1])
    if prog is None:
        return span
    subprogs = program.subprogs
    ends = subprogs.ends(len(program))
    names = [function_name(program, index) for index in range(len(subprogs))]
    for index, name in enumerate(names):
        start = int(subprogs.start[index])
        if name == prog and span[0] <= start < span[1]:
            return start, int(ends[index])
    raise Failure(shown, unknown("program or subprogram", prog, names))


def _only(text: str, span: Span, names: Mapping[int, str], *, to_end: bool) -> Iterator[str]:
    """The lines of a listing that belong to a span, with what relocations refer to."""
    waiting: list[str] = []  # labels and source lines belong to the instruction that follows
    for line in text.splitlines():
        found = _SLOT.match(line)
        if found is None:
            waiting.append(line)
            continue
        slot = int(found[1])
        if span[0] <= slot < span[1]:
            if slot == span[0] and waiting[:1] == [""]:
                del waiting[0]
            yield from waiting
            yield f"{line}  // {names[slot]}" if slot in names else line
        waiting = []
    if to_end:
        yield from waiting


def _xlated(
    program: Program, span: Span, names: Mapping[int, str], *, raw: bool, lines: bool
) -> Iterator[str]:
    starts = {int(start): index for index, start in enumerate(program.subprogs.start)}
    width = max(len(str(len(program))), 4)
    shown = ""
    for slot, text in enumerate(format_xlated(program.insns[: span[1]])):
        if slot < span[0] or not text:
            continue
        if slot in starts:
            yield f"{function_name(program, starts[slot])}:"
            shown = ""
        source = program.source(slot) if lines else None
        if source is not None and (line := f"; {source}  {source.text}".rstrip()) != shown:
            yield line
            shown = line
        bytes_ = f"{_hex(program, slot)}  " if raw else ""
        note = f"  // {names[slot]}" if slot in names else ""
        yield f"{slot:>{width}}: {bytes_}{text}{note}"


def _hex(program: Program, slot: int) -> str:
    n_slots = 2 if slot + 1 < len(program) and program.second_slots[slot + 1] else 1
    return isa.to_bytes(program.insns[slot : slot + n_slots]).hex(" ")


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Instructions as the file has them: what a relocation fills in is not what the code means."""

    insns: isa.Insns
    order: ByteOrder

    def hex(self, program: Program, slot: int) -> str:
        """Both slots of an ld_imm64, one of any other."""
        n_slots = 2 if slot + 1 < len(program) and program.second_slots[slot + 1] else 1
        return isa.to_bytes(self.insns[slot : slot + n_slots], self.order).hex()


def _json(
    source: CliInput,
    program: Program,
    names: Mapping[int, str],
    span: Span,
    syntax: str,
    given: _Bytes,
) -> dict[str, Any]:
    insns = program.insns
    texts = format_insns(insns, Syntax.ASM) if syntax == "llvm" else format_xlated(insns)
    targets = dict(zip(program.refs.slot.tolist(), program.refs.target.tolist(), strict=True))
    ends = program.subprogs.ends(len(program)).tolist()
    functions = []
    for index, start in enumerate(program.subprogs.start.tolist()):
        if not span[0] <= start < span[1]:
            continue
        slots = np.arange(start, ends[index])
        slots = slots[~program.second_slots[slots]]
        functions.append(
            {
                "name": function_name(program, index),
                "section": program.sections[int(program.subprogs.section[index])],
                "start": start,
                "end": ends[index],
                "insns": [
                    {
                        "slot": slot,
                        "bytes": given.hex(program, slot),
                        "text": texts[slot],
                        "target": targets.get(slot),
                        "symbol": names.get(slot),
                        "source": _source_json(program, slot),
                    }
                    for slot in slots.tolist()
                ],
            }
        )
    return {"file": source.shown, "format": source.format, "functions": functions}


def _source_json(program: Program, slot: int) -> dict[str, Any] | None:
    source = program.source(slot)
    if source is None:
        return None
    return {
        "file": source.file,
        "line": source.line,
        "column": source.column,
        "text": source.text,
    }
