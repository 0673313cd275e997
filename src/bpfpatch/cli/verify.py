"""``bpfpatch verify``: does a rewritten object behave as the original?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from bpfpatch.elf import Setup
from bpfpatch.facts.kinds import ProgType
from bpfpatch.isa import ByteOrder
from bpfpatch.runs import MODES
from bpfpatch.verify import WHAT, Bounds, Verdict, verify, verify_objects

from .captures import read_packets
from .diff import DIFFERENT, DiffCommand
from .exec_inputs import parse_hex
from .failure import Failure
from .inputs import CliInput, endian_option, format_option, read_input
from .options import Real
from .saved import Saved, read_saved
from .screen import echo, echo_json, patience
from .setup import check_is_object, setup_options
from .verify_folder import ObjectVerdict, verify_folders

UNCHECKED: Final = 2

EPILOG: Final = """\b
Examples:
  bpfpatch verify lb.o lb.small.o
  bpfpatch verify --prog balance --mode interp --mode jit lb.o lb.small.o
  bpfpatch verify --pcap traffic.pcap --seconds 60 lb.o lb.small.o
  bpfpatch verify --set is_strict=1 --map 'ports[80]=1' lb.o lb.small.o
  bpfpatch verify --input difference.json lb.o lb.small.o
  bpfpatch verify --ignore maps:counts lb.o lb.counted.o
  bpfpatch verify --seconds 2 objects/ small/

\b
Runs both on inputs that are made to reach every branch, and compares what they
return, the packet, the context, maps, helper calls and errors. Every program of
A is compared with that of the same name in B, of two folders every object with
that of the same name. Modes other than interp take root.
Exit status: 0 no difference, 1 some, or a program got lost, 2 failed, wrong
arguments, or some program could not be checked in some mode.
"""


@click.command("verify", cls=DiffCommand, epilog=EPILOG)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--prog", "progs", metavar="NAME", multiple=True, help="Only this program.")
@click.option(
    "--mode",
    "modes",
    type=click.Choice(MODES),
    multiple=True,
    help="Where to run them; can be given more than once.  [default: interp]",
)
@click.option(
    "--pcap",
    "pcaps",
    metavar="FILE",
    multiple=True,
    help="Run them on the packets of a capture, too.",
)
@click.option("--hex", "hex_texts", metavar="HEX", multiple=True, help="Run them on this, too.")
@click.option(
    "--input",
    "saved_paths",
    metavar="FILE.json",
    multiple=True,
    help="Run them on what an earlier verify --json found, too, with its setup.",
)
@click.option(
    "--type", "kind", metavar="TYPE", help="Kind of program where the section does not tell."
)
@click.option(
    "--seconds",
    type=Real(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Most time for a program and mode.",
)
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=100_000,
    show_default=True,
    help="Most inputs for a program.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all random choices.")
@click.option(
    "--ignore",
    metavar="WHAT",
    multiple=True,
    help=f"What need not be the same: {', '.join(WHAT)} or maps:NAME.",
)
@click.option(
    "--allow-unchecked",
    is_flag=True,
    help="Exit with 0 where some programs cannot be checked and others are the same.",
)
@setup_options
@click.option("--fixed-rodata", is_flag=True, help="Do not vary read-only data.")
@format_option
@endian_option
@click.option("-q", "--quiet", "brief", is_flag=True, help="Only say whether they differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    a: str,
    b: str,
    progs: tuple[str, ...],
    modes: tuple[str, ...],
    pcaps: tuple[str, ...],
    hex_texts: tuple[str, ...],
    saved_paths: tuple[str, ...],
    kind: str | None,
    seconds: float,
    runs: int,
    seed: int,
    ignore: tuple[str, ...],
    allow_unchecked: bool,
    setup: Setup,
    fixed_rodata: bool,
    wanted: str,
    endian: ByteOrder,
    brief: bool,
    as_json: bool,
) -> None:
    """Look for an input on which B does not do what A does; one of them may be -."""
    if (a, b, *pcaps, *saved_paths).count("-") > 1:
        raise click.UsageError("only one of A, B, the captures and the inputs can be stdin")
    given = [parse_hex(text, "--hex") for text in hex_texts]
    given += read_packets(pcaps)
    saved = read_saved(saved_paths)
    options = {
        "modes": modes or saved.modes or ("interp",),
        "inputs": given,
        "kind": None if kind is None else _kind(kind),
        "bounds": Bounds(seconds=seconds, runs=runs, seed=seed),
        "ignore": ignore,
        "vary_rodata": not fixed_rodata,
        "setup": saved.setup.then(setup),
    }
    if Path(a).is_dir() or Path(b).is_dir():
        _check_folders(a, b, progs, saved_paths)
        found = verify_folders(a, b, options, brief=brief, quiet=as_json)
        if as_json:
            echo_json({"before": a, "after": b, "objects": [one.to_json() for one in found]})
        _exit(folder_status(found, allow_unchecked=allow_unchecked))
        return
    pair = _Pair(read_input(a, wanted, endian), read_input(b, wanted, endian), saved)
    check_is_object(pair.before, setup)
    verdicts = list(_shown(pair.verdicts(progs, options), brief=brief, quiet=as_json))
    if as_json:
        echo_json(
            {
                "before": pair.before.shown,
                "after": pair.after.shown,
                "programs": [verdict.to_json() for verdict in verdicts],
            }
        )
    _exit(exit_status(verdicts, allow_unchecked=allow_unchecked))


def _exit(status: int) -> None:
    if status:
        raise click.exceptions.Exit(status)


def _check_folders(a: str, b: str, progs: Sequence[str], saved_paths: Sequence[str]) -> None:
    if not (Path(a).is_dir() and Path(b).is_dir()):
        raise click.UsageError("A and B are two folders, or two files")
    for option, given in (("--prog", progs), ("--input", saved_paths)):
        if given:
            raise click.UsageError(f"{option} is of one object, and these are folders")


def folder_status(found: Sequence[ObjectVerdict], *, allow_unchecked: bool = False) -> int:
    """The same as `exit_status` for all objects together; one that got lost differs."""
    words = [one.word for one in found]
    if "lost" in words or "different" in words:
        return DIFFERENT
    is_enough = allow_unchecked and any(v.is_checked for one in found for v in one.verdicts)
    return 0 if is_enough or "unchecked" not in words else UNCHECKED


def exit_status(verdicts: list[Verdict], *, allow_unchecked: bool = False) -> int:
    """1 if any differs or got lost, 2 if some were not checked, else 0.

    Args:
        verdicts: of all programs.
        allow_unchecked: one that was checked in some mode is enough.
    """
    if any(verdict.differs for verdict in verdicts):
        return DIFFERENT
    checked = [verdict.is_wholly_checked for verdict in verdicts]
    if allow_unchecked and any(verdict.is_checked for verdict in verdicts):
        return 0
    return 0 if checked and all(checked) else UNCHECKED


@dataclass(frozen=True)
class _Pair:
    """Both inputs."""

    before: CliInput
    after: CliInput
    saved: Saved

    def verdicts(self, progs: tuple[str, ...], options: dict[str, Any]) -> Iterator[Verdict]:
        """A verdict for each program of the original."""
        if self.before.obj is not None and self.after.obj is not None:
            for names in self._groups(progs):
                inputs = [*(self.saved.of(names[0]) if names else ()), *options["inputs"]]
                given = options | {"inputs": inputs}
                yield from verify_objects(self.before.obj, self.after.obj, names, **given)
            return
        if self.before.obj is not None or self.after.obj is not None:
            raise Failure(self.after.shown, "one input is an object and the other is not")
        if progs:
            raise click.UsageError("--prog names a program of an object, and these are none")
        given = options | {"inputs": [*self.saved.of(""), *options["inputs"]]}
        yield verify(self.before.program, self.after.program, **given)

    def _groups(self, progs: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Programs that get the same inputs: all, or, where some are saved, each for itself."""
        if not self.saved.cases and not self.saved.by_program:
            return [progs]
        assert self.before.obj is not None
        all_names = [info.name for info in self.before.obj.programs]
        return [(name,) for name in progs or tuple(self.saved.by_program) or all_names] or [()]


def _shown(verdicts: Iterator[Verdict], *, brief: bool, quiet: bool) -> Iterator[Verdict]:
    """Print each verdict as soon as there is one."""
    while True:
        with patience("verifying"):
            verdict = next(verdicts, None)
        if verdict is None:
            return
        if not quiet:
            for number, line in enumerate(verdict.lines()):
                if number == 0 or not brief:
                    echo(line)
        yield verdict


def _kind(name: str) -> str:
    return name if name == "mem" else ProgType.of(name).text
