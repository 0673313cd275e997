"""``--set``, ``--map`` and ``--setup``: what programs start with, in all commands that run some."""

from __future__ import annotations

import json
from functools import wraps
from typing import Any, Final

import click

from bpfpatch.elf.files import read_all
from bpfpatch.elf.setup import Setup, SetupEntry, parse_entry
from bpfpatch.errors import OptionError

from .failure import Failure, blame
from .inputs import CliInput
from .options import Callback
from .values import given_values, set_file_option

_OPTIONS: Final = (
    click.option(
        "--set",
        "texts",
        metavar="NAME=VALUE",
        multiple=True,
        help="Start with a variable, or a.member or an[element], of this value.",
    ),
    set_file_option,
    click.option(
        "--map",
        "map_texts",
        metavar="NAME[KEY]=VALUE",
        multiple=True,
        help="Start with an entry of a map: 'ports[80]=1', 'cfg[0]={limit=10,mode=DROP}'.",
    ),
    click.option(
        "--setup",
        "setup_files",
        metavar="FILE.json",
        multiple=True,
        help="Start with the variables and map entries of a file; --set and --map go before it.",
    ),
)


def setup_options(callback: Callback) -> Callback:
    """Add the options, and give what they say to the command as one ``setup``."""

    @wraps(callback)
    def collected(
        *,
        texts: tuple[str, ...],
        set_files: tuple[str, ...],
        map_texts: tuple[str, ...],
        setup_files: tuple[str, ...],
        **others: Any,
    ) -> Any:
        setup = given_setup(texts, set_files, map_texts, setup_files)
        return callback(setup=setup, **others)

    out: Callback = collected
    for option in reversed(_OPTIONS):
        out = option(out)
    return out


def given_setup(
    texts: tuple[str, ...],
    set_files: tuple[str, ...],
    map_texts: tuple[str, ...] = (),
    setup_files: tuple[str, ...] = (),
) -> Setup:
    """What the options say; options go before files, and later files before earlier ones.

    Raises:
        UsageError: an option is not of its form, or gives something twice.
        Failure: a file cannot be read, or is not made as it has to be.
    """
    setup = Setup()
    for path in setup_files:
        setup = setup.then(read_setup(path))
    values = given_values(texts, set_files, set_writable=True).values
    return setup.then(Setup(values, _entries(map_texts)))


def read_setup(path: str) -> Setup:
    """The setup in a file; - is stdin.

    Raises:
        Failure: it cannot be read, or is not made as docs/setup.md says.
    """
    with blame("<stdin>" if path == "-" else path):
        return Setup.from_json(parsed_json(read_all(path)))


def parsed_json(data: bytes) -> Any:
    """What JSON text says.

    Raises:
        OptionError: it is none.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"is no JSON: {error}") from error


def check_is_object(source: CliInput, setup: Setup) -> None:
    """Refuse a setup for code that has no variables and maps.

    Raises:
        Failure: it is such code.
    """
    if setup and source.obj is None:
        raise Failure(
            source.shown, "--set, --map and --setup are for what an object has; this is none"
        )


def _entries(texts: tuple[str, ...]) -> tuple[SetupEntry, ...]:
    out: dict[tuple[str, str], SetupEntry] = {}
    for text in texts:
        try:
            entry = parse_entry(text)
        except OptionError as error:
            raise click.BadParameter(str(error), param_hint="--map") from error
        place = (entry.map, entry.key)
        if place in out:
            raise click.UsageError(f"--map gives {entry.map}[{entry.key}] twice")
        out[place] = entry
    return tuple(out.values())
