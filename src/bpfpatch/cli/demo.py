"""``bpfpatch demo``: rewrite a real object, and see that it does what it did."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Final

import click

from bpfpatch.elf import ElfObject
from bpfpatch.passes import Pipeline, Result, Sprinkle
from bpfpatch.report import Diff, diff_programs

from . import bpftool
from .demo_packets import packets
from .demo_pass import Scrub
from .failure import Command, Failure, blame
from .inputs import reference_names
from .screen import echo_diff, echo_table

EPILOG: Final = """\b
Examples:
  bpfpatch demo
  bpfpatch demo -o /tmp/demo
"""

SHOWN_FUNCTION: Final = "count"
SHOWN_LINES: Final = 60
VERDICTS: Final = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")

Row = tuple[str, int, str, str, str]


@click.command("demo", cls=Command, epilog=EPILOG)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    default="demo-out",
    show_default=True,
    help="Folder for the objects.",
)
def command(output: str) -> None:
    """Rewrite a bundled XDP load balancer, show the change, and run both on the same packets.

    Running them takes root, bpf(2) and bpftool, and is skipped without.
    """
    obj = _bundled()
    _head(f"An XDP load balancer: {len(obj.code.subprogs)} functions, {_size(obj)}")
    pipeline = Pipeline((Sprinkle(), Scrub()))
    click.echo(f"The pipeline is {pipeline}: a goto +0 before every instruction, and a pass")
    click.echo("that is not part of bpfpatch:\n")
    click.echo(inspect.getsource(Scrub))
    with blame("demo.o"):
        result = pipeline.run(obj.code)
        patched = obj.with_code(result)
    click.echo(f"demo.o: {result.report}")
    for notice in patched.notices:
        click.echo(f"demo.o: note: {notice}")
    _show_change(obj, patched, result)
    paths = _write(Path(output), {"balancer.o": obj, "balancer.patched.o": patched})
    _compare(*paths)


def _bundled() -> ElfObject:
    data = resources.files("bpfpatch").joinpath("data/demo.o").read_bytes()
    return ElfObject.parse(data)


def _size(obj: ElfObject) -> str:
    return f"{int((~obj.code.second_slots).sum())} instructions"


def _head(text: str) -> None:
    click.echo(f"\n== {text}\n")


def _show_change(obj: ElfObject, patched: ElfObject, result: Result) -> None:
    """Print what became of one function, with its source lines."""
    diff = diff_programs(
        obj.code,
        result.program,
        result.remap,
        old_names=reference_names(obj),
        new_names=reference_names(patched),
    )
    _head(f"What became of one function, {SHOWN_FUNCTION}(): old slot, new slot, instruction")
    chosen = tuple(one for one in diff.functions if one.name == SHOWN_FUNCTION)
    part: Diff = replace(diff, functions=chosen)
    echo_diff(islice(part.lines(show_all=True), SHOWN_LINES))


def _write(folder: Path, objects: dict[str, ElfObject]) -> list[Path]:
    with blame(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in objects]
    for path, obj in zip(paths, objects.values(), strict=True):
        with blame(str(path)):
            obj.write(path)
    _head(f"Written: {paths[0]} and {paths[1]}")
    return paths


def _compare(original: Path, patched: Path) -> None:
    """Run both objects on the same packets, and print what they did.

    Raises:
        Failure: they differ, or only the original can be loaded.
    """
    rows: list[Row] = []
    with _skipping(), bpftool.bpffs() as folder:
        old = bpftool.load(original, folder / "original")
        with _failing(patched):
            new = bpftool.load(patched, folder / "patched")
        (old_pin,), (new_pin,) = old.values(), new.values()
        for name, packet in packets().items():
            was = bpftool.run(old_pin, packet)
            with _failing(patched):
                now = bpftool.run(new_pin, packet)
            same = "equal" if was == now else "DIFFERENT"
            rows.append((name, len(packet), _verdict(packet, was), _verdict(packet, now), same))
    if not rows:
        return
    _head("Both loaded by bpftool and run on the same packets")
    echo_table("", ["packet", "bytes#", "original", "patched", "result"], rows)
    if any(row[-1] != "equal" for row in rows):
        raise Failure(str(patched), "does not do what the original does")
    click.echo(f"\nAll {len(rows)} results are equal.")


@contextmanager
def _skipping() -> Iterator[None]:
    try:
        yield
    except bpftool.LoaderError as error:
        click.echo(f"Skipped loading and running both: {error}")


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except bpftool.LoaderError as error:
        raise Failure(
            str(path), f"the original loads and runs, and this does not: {error}"
        ) from error


def _verdict(packet: bytes, ran: bpftool.Ran) -> str:
    known = ran.verdict < len(VERDICTS)
    name = f"XDP_{VERDICTS[ran.verdict]}" if known else str(ran.verdict)
    n_changed = sum(a != b for a, b in zip(packet, ran.packet, strict=False))
    n_changed += abs(len(packet) - len(ran.packet))
    return f"{name}, {n_changed} bytes rewritten" if n_changed else name
