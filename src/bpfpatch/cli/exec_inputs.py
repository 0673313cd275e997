"""What ``bpfpatch exec`` and ``cover run`` run, where and on what."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import click

from bpfpatch.elf.files import read_all
from bpfpatch.errors import FormatError, UnsupportedError
from bpfpatch.facts.kinds import ProgType
from bpfpatch.runs import MODES, Input, read_pcap
from bpfpatch.runs.pcap import ETHERNET

from .failure import blame

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
    pcap: str | None,
    ctx_text: str | None,
    prog_type: ProgType | None,
) -> Given:
    """The inputs that the options ask for.

    Raises:
        UsageError: options that exclude each other, or are no hex digits.
        Failure: a file cannot be read.
    """
    if sum(one is not None for one in (hex_text, path, pcap)) > 1:
        raise click.UsageError("--hex, --file and --pcap each give the input: choose one")
    ctx = None if ctx_text is None else parse_hex(ctx_text, "--ctx")
    if pcap is not None:
        return Given(tuple(_input(data, ctx, prog_type, pcap=True) for data in _packets(pcap)))
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


def _packets(path: str) -> list[bytes]:
    with blame("<stdin>" if path == "-" else path):
        capture = read_pcap(read_all(path))
        if capture.link_type != ETHERNET:
            raise UnsupportedError(
                f"its packets have link type {capture.link_type}; programs run on Ethernet, "
                f"{ETHERNET}"
            )
        if not capture.frames:
            raise FormatError("it holds no packets")
        return [frame.data for frame in capture.frames]


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
        "--pcap", metavar="FILE", help="One run for each packet of a capture; - for stdin."
    ),
    click.option("--ctx", "ctx_text", metavar="HEX", help="The context, beside a packet."),
    click.option("--repeat", metavar="N", type=click.IntRange(1), default=1, help="Run N times."),
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
