"""The man page, made of what ``--help`` says: ``python -m bpfpatch.cli.manpage > bpfpatch.1``.

Source: man(7) and groff_man(7), groff 1.23.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Final

import click

from bpfpatch._version import __version__

from .app import COMMANDS, cli

_VERBATIM: Final = "\b\n"
_ENVIRONMENT: Final = (
    ("BPFPATCH_DEBUG", "With a value, an internal error shows where it happened."),
    ("NO_COLOR", "With a value, nothing is coloured."),
    ("_BPFPATCH_COMPLETE", "Set to bash_source, zsh_source or fish_source: print completion code."),
)
_SEE_ALSO: Final = ("bpftool(8)", "llvm-objdump(1)", "bpf(2)", "xdp-loader(8)")


def man_page() -> str:
    """The page in roff, with a section for each command."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield f'.TH BPFPATCH 1 "" "bpfpatch {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"bpfpatch {_plain('-')} {_plain(_first_line(cli))}"
    yield ".SH SYNOPSIS"
    yield ".B bpfpatch"
    yield _plain("COMMAND [OPTIONS] [ARGUMENTS]")
    yield ".SH DESCRIPTION"
    yield from _text(cli.help or "")
    top = click.Context(cli, info_name="bpfpatch", **cli.context_settings)
    yield from _options(cli, top)
    yield ".SH COMMANDS"
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        yield from _command(command, click.Context(command, info_name=name, parent=top))
    yield ".SH ENVIRONMENT"
    for variable, meaning in _ENVIRONMENT:
        yield from (".TP", f".B {_plain(variable)}", _plain(meaning))
    yield from _epilog(cli.epilog or "", ".SH")
    yield ".SH SEE ALSO"
    yield ", ".join(_plain(page) for page in _SEE_ALSO)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command: how it is called, what it does, its options, examples."""
    yield f".SS {_plain(context.command_path)}"
    yield ".nf"
    for line in command.get_usage(context).splitlines():
        yield _plain(line.removeprefix("Usage:").strip())
    yield ".fi"
    yield ".PP"
    yield from _text(command.help or "")
    yield from _options(command, context)
    yield from _epilog(command.epilog or "", ".PP")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _command(found, click.Context(found, info_name=name, parent=context))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None and "--help" not in record[0]:
            yield from (".TP", f".B {_plain(record[0])}", _plain(record[1]))


def _text(text: str) -> Iterator[str]:
    """Paragraphs as they are."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield _plain(" ".join(paragraph.split()))


def _epilog(text: str, head: str) -> Iterator[str]:
    """Examples and the like, with their lines kept, under the heading that each begins with."""
    for part in text.split(_VERBATIM):
        lines = part.rstrip().splitlines()
        if not lines:
            continue
        title, rest = lines[0], lines[1:]
        if head == ".SH" and title.endswith(":"):
            yield f".SH {_plain(title.rstrip(':').upper())}"
        else:
            rest = lines
            yield head if head != ".SH" else ".SH EXIT STATUS"
        yield ".nf"
        yield from (_plain(line) for line in rest)
        yield ".fi"


def _first_line(command: click.Command) -> str:
    return (command.help or "").strip().partition("\n")[0].rstrip(".")


def _plain(text: str) -> str:
    """Text that means itself in roff."""
    out = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{out}" if out.startswith((".", "'")) else out


if __name__ == "__main__":
    sys.stdout.write(man_page())
