"""``bpfpatch demo``: rewrite a real object, and see that it does what it did."""

from __future__ import annotations

import inspect
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Final

import click

from bpfpatch import runs
from bpfpatch.elf import ElfObject
from bpfpatch.errors import BpfPatchError
from bpfpatch.facts import ProgType
from bpfpatch.passes import Pipeline, Result, Sprinkle
from bpfpatch.report import Diff, diff_programs
from bpfpatch.text import plural

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

Row = tuple[str, int, str, str, str]
Ran = tuple[int, bytes]
"""What running a program on a packet gave: the low half of R0, and the packet."""


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

    The kernel judges where bpf(2) is allowed, elsewhere bpfpatch's interpreter.
    """
    obj = _bundled()
    _head(f"An XDP load balancer: {plural(len(obj.code.subprogs), 'function')}, {_size(obj)}")
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
    _compare(dict(zip(paths, (obj, patched), strict=True)))


def _bundled() -> ElfObject:
    data = resources.files("bpfpatch").joinpath("data/demo.o").read_bytes()
    return ElfObject.parse(data)


def _size(obj: ElfObject) -> str:
    return f"{plural(int((~obj.code.second_slots).sum()), 'instruction')}"


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


def _compare(objects: dict[Path, ElfObject]) -> None:
    """Run both objects on the same packets, and print what they did.

    Raises:
        Failure: they differ, or only the original can be loaded.
    """
    (_, obj), (path, patched) = objects.items()
    click.echo(f"Running both on {plural(len(packets()), 'packet')} ...")
    judge, mode, old = _judged(obj)
    with blame(str(path)):
        new = _outcomes(patched, mode)
    click.echo(f"Judge: {judge}.")
    click.echo(f"Second witness: {_second_witness(dict(zip(objects, (old, new), strict=True)))}.")
    rows: list[Row] = [
        (name, len(packet), _words(packet, was), _words(packet, now), _equal(was, now))
        for (name, packet), was, now in zip(packets().items(), old, new, strict=True)
    ]
    _head("What both did with the same packets")
    echo_table("", ["packet", "bytes#", "original", "patched", "result"], rows)
    if any(row[-1] != "equal" for row in rows):
        raise Failure(str(path), "does not do what the original does")
    click.echo(f"\nAll {len(rows)} results are equal.")


def _judged(obj: ElfObject) -> tuple[str, str, list[Ran]]:
    """Who judges here, in which mode, and what the original does with each packet."""
    reason = runs.available("jit")
    if reason is None:
        try:
            return "the kernel; bpfpatch loaded both", "jit", _outcomes(obj, "jit")
        except BpfPatchError as error:
            reason = f"it does not load the original: {error}"
    return f"bpfpatch's interpreter, not the kernel ({reason})", "interp", _outcomes(obj, "interp")


def _outcomes(obj: ElfObject, mode: str) -> list[Ran]:
    """What an object's program does with each packet, its maps starting empty."""
    (program,) = obj.programs
    with runs.open_runner(obj.link(program.name), mode, obj=obj) as runner:
        inputs = (runs.Input(packet=packet) for packet in packets().values())
        return [_ran(runner.run(one, with_maps=False)) for one in inputs]


def _ran(outcome: runs.Outcome) -> Ran:
    if outcome.error is not None:
        raise outcome.error
    return outcome.r0_as(32), outcome.packet or b""


def _second_witness(wanted: dict[Path, list[Ran]]) -> str:
    """What bpftool says of both objects, in a few words.

    Raises:
        Failure: it says something else than the judge.
    """
    reason = bpftool.absent()
    for path, ran in wanted.items():
        if reason is not None:
            break
        try:
            seen = bpftool.run_all(path, packets().values())
        except bpftool.LoaderError as error:
            reason = str(error)
            continue
        if seen != ran:
            raise Failure(str(path), "loaded by bpftool, it does something else than loaded by us")
    return "bpftool, which says the same" if reason is None else f"none (bpftool: {reason})"


def _equal(was: Ran, now: Ran) -> str:
    return "equal" if was == now else "DIFFERENT"


def _words(packet: bytes, ran: Ran) -> str:
    """What a program did with a packet, such as ``XDP_TX, 9 bytes rewritten``."""
    r0, after = ran
    name = runs.action_name(ProgType.XDP, r0) or str(r0)
    n_changed = sum(a != b for a, b in zip(packet, after, strict=False))
    n_changed += abs(len(packet) - len(after))
    return f"{name}, {n_changed} bytes rewritten" if n_changed else name
