"""What ``bpfpatch exec`` and ``cover run`` run, where and on what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from bpfpatch.btf import Btf
from bpfpatch.elf import ElfObject
from bpfpatch.elf.files import read_all
from bpfpatch.errors import FormatError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.interp.contexts import SKB_FIELDS, SKB_SIZE, XDP_FIELDS, XDP_SIZE
from bpfpatch.interp.limits import limits_met
from bpfpatch.runs import MODES, Input, Outcome
from bpfpatch.runs.netctx import SKB_TYPES
from bpfpatch.text import unknown

from .captures import read_packets
from .failure import blame
from .screen import echo

_SEPARATORS: Final = re.compile(r"[\s:,]+|0x|\\x")
_NO_PACKET: Final = 64
"""Bytes of the packet of zeros that a packet program gets where none is given."""


@dataclass(frozen=True)
class Given:
    """The inputs, in order."""

    inputs: tuple[Input, ...]


def given_inputs(
    hex_text: str | None,
    path: str | None,
    pcaps: Sequence[str],
    ctx_text: str | None,
    prog_type: ProgType | None,
) -> Given:
    """The inputs that the options ask for.

    Raises:
        UsageError: options that exclude each other, or are no hex digits.
        Failure: a file cannot be read.
    """
    if (hex_text is not None) + (path is not None) + bool(pcaps) > 1:
        raise click.UsageError("--hex, --file and --pcap each give the input: choose one")
    ctx = None if ctx_text is None else parse_context(ctx_text, prog_type)
    if pcaps:
        packets = read_packets(pcaps)
        return Given(tuple(_input(data, ctx, prog_type, pcap=True) for data in packets))
    if hex_text is not None:
        data = parse_hex(hex_text, "--hex")
    elif path is not None:
        with blame("<stdin>" if path == "-" else path):
            data = read_all(path)
    else:
        data = None
    return Given((_input(data, ctx, prog_type),))


def _input(
    data: bytes | None, ctx: bytes | None, prog_type: ProgType | None, *, pcap: bool = False
) -> Input:
    from bpfpatch.bpf.testrun import run_input  # noqa: PLC0415 - it takes a while

    if prog_type is None:
        if pcap or ctx is not None:
            return Input(packet=data, ctx=ctx)
        return Input(mem=data or b"")
    if run_input(prog_type) == "data":
        return Input(packet=bytes(_NO_PACKET) if data is None else data, ctx=ctx)
    if pcap:
        raise click.UsageError(f"a {prog_type.text} program runs on no packets")
    if data is not None and ctx is not None:
        raise click.UsageError(f"a {prog_type.text} program has a context only: give one input")
    return Input(ctx=data if ctx is None else ctx)


def parse_context(text: str, prog_type: ProgType | None) -> bytes:
    """A context from hex digits, or from ``FIELD=NUMBER`` with commas between them.

    Raises:
        BadParameter: neither, or there is no such field.
    """
    if "=" not in text:
        return parse_hex(text, "--ctx")
    is_xdp = prog_type is ProgType.XDP
    if not is_xdp and prog_type not in SKB_TYPES:
        raise click.BadParameter(
            "fields are of struct xdp_md or __sk_buff; give hex digits here", param_hint="--ctx"
        )
    known, size = (XDP_FIELDS, XDP_SIZE) if is_xdp else (SKB_FIELDS, SKB_SIZE)
    out = bytearray(size)
    for part in text.split(","):
        name, _, number = part.partition("=")
        name = name.strip().replace("[", "").replace("]", "")
        if name not in known:
            raise click.BadParameter(unknown("context field", name, known), param_hint="--ctx")
        at, width = known[name]
        try:
            out[at : at + width] = int(number, 0).to_bytes(width, "little")
        except (ValueError, OverflowError) as error:
            raise click.BadParameter(
                f"{name} is a number of {width} bytes, not {number!r}", param_hint="--ctx"
            ) from error
    return bytes(out)


def parse_hex(text: str, option: str) -> bytes:
    """Bytes from hex digits; spaces, colons, commas and ``0x`` between them are fine.

    Raises:
        BadParameter: something else is in it, or half a byte.
    """
    digits = _SEPARATORS.sub("", text)
    try:
        return bytes.fromhex(digits)
    except ValueError as error:
        what = "an odd number of hex digits" if len(digits) % 2 else str(error)
        raise click.BadParameter(what, param_hint=option) from error


def read_btf(path: str | None, mode: str) -> Btf | None:
    """The types in a file: BTF itself, or an ELF file with a .BTF section such as vmlinux.

    Raises:
        UsageError: the kernel is to run the program, and has types of its own.
        Failure: the file cannot be read, or has no types.
    """
    if path is None:
        return None
    if mode != "interp":
        raise click.UsageError("--btf is for --mode interp: the kernel applies its own types")
    with blame("<stdin>" if path == "-" else path):
        data = read_all(path)
        if not data.startswith(b"\x7fELF"):
            return Btf.parse(data)
        section = ElfObject.parse(data).btf
        if section is None:
            raise FormatError("it has no section .BTF")
        return section


def tell_limits(where: str, outcomes: Iterable[Outcome]) -> None:
    """Say on stderr what the interpreter could not do of what programs asked for."""
    names = dict.fromkeys(call.name for one in outcomes for call in one.helpers or ())
    tell_limits_of(where, names)


def tell_limits_of(where: str, names: Iterable[str]) -> None:
    """The same by the names of the helpers that were called."""
    for note in limits_met(names):
        echo(f"{where}: note: {note}", err=True)


Callback = Callable[..., Any]

_RUN: Final[tuple[Callable[[Callback], Callback], ...]] = (
    click.option("--prog", metavar="NAME", help="Which program of the object."),
    click.option(
        "--mode",
        type=click.Choice(MODES),
        default="interp",
        show_default=True,
        help="Where to run it.",
    ),
    click.option(
        "--type", "type_name", metavar="TYPE", help="Kind of program: xdp, sched_cls, ..."
    ),
    click.option("--hex", "hex_text", metavar="HEX", help="The input, as hex digits."),
    click.option("--file", "path", metavar="FILE", help="The input, a file's bytes; - for stdin."),
    click.option(
        "--pcap",
        "pcaps",
        metavar="FILE",
        multiple=True,
        help="One run for each packet of a capture; - for stdin.",
    ),
    click.option(
        "--ctx",
        "ctx_text",
        metavar="CTX",
        help="The context, beside a packet: hex digits, or fields as in mark=0xbeef,cb[0]=1.",
    ),
    click.option(
        "--btf",
        "btf_path",
        metavar="FILE",
        help="Types to apply CO-RE with (interp).  [default: the running kernel's]",
    ),
    click.option(
        "--repeat", metavar="N", type=click.IntRange(1, 1_000_000), default=1, help="Run N times."
    ),
    click.option(
        "--budget",
        type=click.IntRange(1),
        default=1_000_000,
        show_default=True,
        help="Instructions that a run may take (interp).",
    ),
)


def run_options(callback: Callback) -> Callback:
    """Which program to run, where, on what and how long: those of `exec` and `cover run`."""
    for option in reversed(_RUN):
        callback = option(callback)
    return callback
