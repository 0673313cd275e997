"""``--set``: new values for an object's variables, in what rewrites one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from bpfpatch.elf.files import read_all
from bpfpatch.errors import OptionError

from .failure import Failure, blame
from .inputs import CliInput
from .options import Callback

set_file_option: Final = click.option(
    "--set-file",
    "set_files",
    metavar="FILE.json",
    multiple=True,
    help="The same for all names in a JSON object.",
)
_OPTIONS: Final = (
    click.option(
        "--set",
        "texts",
        metavar="NAME=VALUE",
        multiple=True,
        help="Give a read-only variable, or a.member or an[element], a value.",
    ),
    set_file_option,
    click.option(
        "--set-writable",
        is_flag=True,
        help="Let --set give variables in .data, too, what they start with.",
    ),
)


@dataclass(frozen=True)
class Values:
    """What `value_options` were given.

    Attributes:
        values: by name.
        writable: whether variables that programs write may be among them.
    """

    values: Mapping[str, Any]
    writable: bool

    def into_input(self, source: CliInput) -> CliInput:
        """An input with these values.

        Raises:
            Failure: it is no object, has no such variable, or the value does not fit.
        """
        if not self.values:
            return source
        if source.obj is None:
            raise Failure(source.shown, "--set gives variables of an object values; this is none")
        with blame(source.shown):
            obj = source.obj.with_values(self.values, writable=self.writable)
        return replace(source, obj=obj, program=obj.code)


def value_options(callback: Callback) -> Callback:
    """``--set``, ``--set-file`` and ``--set-writable``: see `given_values`."""
    for option in reversed(_OPTIONS):
        callback = option(callback)
    return callback


def given_values(
    texts: tuple[str, ...], set_files: tuple[str, ...], *, set_writable: bool
) -> Values:
    """The values that the options give; ``--set`` goes before what a file says.

    Raises:
        UsageError: something else than ``NAME=VALUE``, or a name is given twice.
        Failure: a file cannot be read, or holds no JSON object.
    """
    values: dict[str, Any] = {}
    for path in set_files:
        values |= _from_file(path)
    given: set[str] = set()
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise click.UsageError(f"--set takes NAME=VALUE, not {text!r}")
        if name in given:
            raise click.UsageError(f"--set gives {name} twice")
        given.add(name)
        values.pop(name, None)  # a member given here comes after the whole struct of a file
        values[name] = value
    return Values(values, set_writable)


def _from_file(path: str) -> dict[str, Any]:
    with blame("<stdin>" if path == "-" else path):
        try:
            found = json.loads(read_all(path))
        except ValueError as error:
            raise OptionError(f"is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise OptionError("holds no JSON object of values by name")
        return found
