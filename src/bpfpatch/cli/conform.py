"""``bpfpatch conform``: a plugin for the bpf_conformance suite's runner.

Source: bpf_conformance, libbpf_plugin/libbpf_plugin.cpp, main() (the arguments, and what is
printed where) and README.md.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from bpfpatch.elf import ElfObject, LinkedProgram
from bpfpatch.errors import BpfPatchError, FormatError, OptionError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp.contexts import ETH_HEADER
from bpfpatch.program import Program
from bpfpatch.runs import MODES, Input, available, open_runner

from .exec import rewritten
from .exec_inputs import parse_hex
from .failure import Command, Failure
from .plugins import load_plugins, plugin_option
from .screen import echo

EPILOG: Final = """\b
Examples:
  echo 'b7 00 00 00 2a 00 00 00 95 00 00 00 00 00 00 00' | bpfpatch conform
  bpfpatch conform '01 02 03' --program '71 10 01 00 ...' --mode jit+harden

\b
The suite's runner takes one command without options for a plugin: a script
that says `exec bpfpatch conform --mode jit "$@"`.
"""

_MAX_TEXT: Final = 1 << 26


@click.command("conform", cls=Command, epilog=EPILOG)
@click.argument("memory", metavar="[MEMORY]", default="")
@click.option("--program", "text", metavar="HEX", help="The program; from stdin otherwise.")
@click.option("--elf", is_flag=True, help="The program's bytes are an object.")
@click.option("--xdp", is_flag=True, help="The program is an XDP program, the memory its packet.")
@click.option("--debug", is_flag=True, help="Say on stdout, too, what is wrong.")
@click.option(
    "--mode", type=click.Choice(MODES), default="interp", show_default=True, help="Where to run it."
)
@click.option(
    "-p", "--pipeline", "passes", metavar="PIPELINE", default="", help="Rewrite it first."
)
@click.option("--internal", is_flag=True, help="Let passes make the kernel's own form (interp).")
@plugin_option
def command(
    *,
    memory: str,
    text: str | None,
    elf: bool,
    xdp: bool,
    debug: bool,
    mode: str,
    passes: str,
    internal: bool,
    plugins: tuple[str, ...],
) -> None:
    """Run a program in hex on MEMORY in hex, and print R0 in hex."""
    if internal and mode != "interp":
        raise click.UsageError("--internal is for --mode interp: bpf(2) refuses that form")
    load_plugins(plugins)
    data = parse_hex(memory, "MEMORY")
    code = parse_hex(_from_stdin() if text is None else text, "the program")
    try:
        r0 = _run(code, data, mode, passes, elf=elf, xdp=xdp, internal=internal)
    except BpfPatchError as error:
        if debug:
            echo(str(error))
        raise Failure("conform", str(error)) from error
    echo(f"{r0:x}")


def _from_stdin() -> str:
    text = sys.stdin.buffer.read(_MAX_TEXT + 1)
    if len(text) > _MAX_TEXT:
        raise Failure("<stdin>", f"a program of more than {_MAX_TEXT} bytes of text")
    return text.decode("ascii", "replace")


def _run(
    code: bytes, data: bytes, mode: str, passes: str, *, elf: bool, xdp: bool, internal: bool
) -> int:
    reason = available(mode)
    if reason is not None:
        raise OptionError(f"mode {mode}: {reason}")
    obj = ElfObject.parse(code) if elf else None
    program = rewritten(_program(code, obj), passes, internal=internal)
    kind = ProgType.XDP if xdp else None
    if xdp and mode != "interp":
        data = data.ljust(ETH_HEADER, b"\0")  # the kernel takes no shorter packet
    one = Input(packet=data) if xdp else Input(mem=data)
    with open_runner(
        program, mode, obj=obj, prog_type=kind, on_memory=not xdp, whole_r0=xdp
    ) as runner:
        outcome = runner.run(one, with_maps=False)
    if outcome.error is not None:
        raise outcome.error
    return outcome.r0


def _program(code: bytes, obj: ElfObject | None) -> LinkedProgram | Program:
    if obj is None:
        return Program.from_bytes(code)
    if obj.programs:
        return obj.link(obj.programs[0].name)
    if not len(obj.code):
        raise FormatError("the object has no code")
    return obj.code
