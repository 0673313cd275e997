"""Which counters of an instrumented object a command works on: files, maps, programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from bpfpatch.coverage import Coverage
from bpfpatch.coverage.collect import from_map_id, from_pin, from_program_id, load
from bpfpatch.elf.files import read_all
from bpfpatch.passes.cover import CoverMap

from .failure import blame
from .options import KERNEL_ID

Callback = Callable[..., Any]

_PARAMS: Final[tuple[Callable[[Callback], Callback], ...]] = (
    click.argument("counters", metavar="[COUNTERS]...", nargs=-1),
    click.option("--pin", "pins", metavar="PATH", multiple=True, help="A pinned map or program."),
    click.option(
        "--id", "map_ids", metavar="N", type=KERNEL_ID, multiple=True, help="A map, by its id."
    ),
    click.option(
        "--prog-id",
        "prog_ids",
        metavar="N",
        type=KERNEL_ID,
        multiple=True,
        help="A program, by its id.",
    ),
)


def counter_options(callback: Callback) -> Callback:
    """Add ``COUNTERS``, ``--pin``, ``--id`` and ``--prog-id`` to a command."""
    return _added(_PARAMS, callback)


def live_options(callback: Callback) -> Callback:
    """Add ``--pin``, ``--id`` and ``--prog-id`` alone."""
    return _added(_PARAMS[1:], callback)


def _added(params: tuple[Callable[[Callback], Callback], ...], callback: Callback) -> Callback:
    for param in reversed(params):
        callback = param(callback)
    return callback


def read_counters(
    cover: CoverMap,
    counters: tuple[str, ...],
    pins: tuple[str, ...],
    map_ids: tuple[int, ...],
    prog_ids: tuple[int, ...],
) -> Coverage:
    """What ran, by all of the counters together.

    Raises:
        UsageError: there are none.
        Failure: some cannot be read, or are another object's.
    """
    if not (counters or pins or map_ids or prog_ids):
        raise click.UsageError("which counters? Give files, --pin, --id or --prog-id")
    first, *others = _each(cover, counters, pins, map_ids, prog_ids)
    return first.merged(*others)


def _each(
    cover: CoverMap,
    counters: tuple[str, ...],
    pins: tuple[str, ...],
    map_ids: tuple[int, ...],
    prog_ids: tuple[int, ...],
) -> Iterator[Coverage]:
    for path in counters:
        with blame("<stdin>" if path == "-" else path):
            yield load(read_all(path), cover)
    for pin in pins:
        with blame(pin):
            yield from_pin(cover, pin)
    for map_id in map_ids:
        with blame(f"map {map_id}"):
            yield from_map_id(cover, map_id)
    for prog_id in prog_ids:
        with blame(f"program {prog_id}"):
            yield from_program_id(cover, prog_id)
