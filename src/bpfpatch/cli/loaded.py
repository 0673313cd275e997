"""``--prog-id`` and ``--pin``: programs in the kernel, where otherwise an object goes in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .failure import blame
from .inputs import CliInput
from .options import KERNEL_ID, Callback
from .screen import echo, echo_json, echo_table

if TYPE_CHECKING:
    from bpfpatch.bpf.inspect import InspectedProgram

_OPTIONS: Final = (
    click.option(
        "--prog-id",
        "prog_ids",
        metavar="N",
        type=KERNEL_ID,
        multiple=True,
        help="A program in the kernel, by its id, in place of a file.",
    ),
    click.option(
        "--pin",
        "pins",
        metavar="PATH",
        multiple=True,
        help="The same by where it is pinned; what is in a folder is listed.",
    ),
)


def loaded_options(callback: Callback) -> Callback:
    """Add ``--prog-id`` and ``--pin`` to a command."""
    for option in reversed(_OPTIONS):
        callback = option(callback)
    return callback


def list_folders(pins: Sequence[str], *, as_json: bool = False) -> bool:
    """Print what the folders among the pins hold; whether there was one."""
    folders = [pin for pin in pins if Path(pin).is_dir()]
    if not folders:
        return False
    from bpfpatch.bpf.inspect import pins_in  # noqa: PLC0415 - for a file's sake bpf(2) is too much

    found = []
    for folder in folders:
        with blame(folder):
            found += pins_in(folder)
    if as_json:
        keys = ("path", "kind", "id", "name", "type")
        echo_json([{key: getattr(one, key) for key in keys} for one in found])
    elif found:
        rows = [(one.id or "", one.kind or "other", one.type, one.name, one.path) for one in found]
        echo_table("", ["id#", "kind", "type", "name", "path"], rows)
    else:
        echo(f"nothing is pinned in {', '.join(folders)}")
    return True


def loaded_programs(prog_ids: Sequence[int], pins: Sequence[str]) -> list[CliInput]:
    """The programs that the options name, as inputs.

    Raises:
        Failure: there is none, or the kernel does not tell.
    """
    return [_input(*one) for one in inspected(prog_ids, pins)]


def inspected(prog_ids: Sequence[int], pins: Sequence[str]) -> list[tuple[str, InspectedProgram]]:
    """The same, with what messages call each.

    Raises:
        Failure: there is none, or the kernel does not tell.
    """
    if not prog_ids and not pins:
        return []
    from bpfpatch.bpf.inspect import inspect_program, program_at  # noqa: PLC0415 - as above

    out = []
    for prog_id in prog_ids:
        with blame(f"program {prog_id}"):
            out.append((f"program {prog_id}", inspect_program(prog_id)))
    for pin in pins:
        with blame(pin):
            out.append((pin, inspect_program(program_at(pin))))
    return out


def _input(shown: str, found: InspectedProgram) -> CliInput:
    return CliInput(shown, "loaded", found.program, None, sys.byteorder, found.names)


def check_count(
    files: Sequence[str | None], prog_ids: Sequence[int], pins: Sequence[str], wanted: int
) -> None:
    """Refuse too few or too many inputs.

    Raises:
        UsageError: they are.
    """
    count = sum(one is not None for one in files) + len(prog_ids) + len(pins)
    if count != wanted:
        what = "one input" if wanted == 1 else f"{wanted} inputs"
        raise click.UsageError(f"give {what}, a file, --prog-id or --pin each; there are {count}")
