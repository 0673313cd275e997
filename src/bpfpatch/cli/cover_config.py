"""What a project sets once: ``[tool.bpfpatch]`` in pyproject.toml, or bpfpatch.toml.

The file is looked for in the current folder and those above it, up to the top of a repository.
A table stands for a command, and its keys are the command's options; the command line wins.
"""

from __future__ import annotations

import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from .failure import Command, Failure, blame

OWN: Final = "bpfpatch.toml"
SHARED: Final = "pyproject.toml"
TABLES: Final = ("cover", "report")
"""Of `bpfpatch cover OBJ`, and of `bpfpatch cover report`."""
_GIVEN: Final = "bpfpatch.arguments"
_PATHS: Final = frozenset({"output", "source-root", "write-sources"})
"""Options that name files: in a file of settings they are relative to it."""
_NOT_SET: Final = frozenset({"help", "config", "pin", "id", "prog-id"})
"""Options that say what one run of a command is about."""


class ConfiguredCommand(Command):
    """A command some of whose options a project can set."""

    table: str = ""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take what the project sets for defaults, then parse."""
        ctx.meta[_GIVEN] = list(args)
        wanted = _wanted(args)
        if wanted != "":
            found = settings(self, self.table, Path(wanted) if wanted else None)
            ctx.default_map = {**(ctx.default_map or {}), **found}
        return super().parse_args(ctx, args)


def command_line() -> str:
    """The command that runs, as a shell takes it."""
    ctx = click.get_current_context()
    return shlex.join([*ctx.command_path.split(), *ctx.meta.get(_GIVEN, [])])


class InstrumentCommand(ConfiguredCommand):
    """`bpfpatch cover OBJ`."""

    table = "cover"


class ReportCommand(ConfiguredCommand):
    """`bpfpatch cover report`."""

    table = "report"


config_option: Final = click.option(
    "--config",
    metavar="FILE",
    expose_value=False,
    help="Settings; '' for none.  [default: bpfpatch.toml or pyproject.toml, here or above]",
)


def _wanted(args: list[str]) -> str | None:
    """What --config says; None where it is not given."""
    for at, arg in enumerate(args):
        if arg == "--":
            break
        if arg == "--config" and at + 1 < len(args):
            return args[at + 1]
        if arg.startswith("--config="):
            return arg.removeprefix("--config=")
    return None


def settings(command: click.Command, table: str, path: Path | None = None) -> dict[str, Any]:
    """What a project sets for a command, by parameter.

    Args:
        command: whose options they are.
        table: its name in the file.
        path: the file; by default it is looked for.

    Raises:
        Failure: the file cannot be read, has keys that are unknown, or values of another type.
    """
    found = next(_found(Path.cwd()), None) if path is None else (path, _tables(path))
    if found is None:
        return {}
    path, tables = found
    if tables is None:
        raise Failure(str(path), "has no table [tool.bpfpatch]")
    with blame(str(path)):
        _known(path, tables, TABLES, f"{_prefix(path)}%s is no table of settings")
        for name, value in tables.items():
            if not isinstance(value, dict):
                raise Failure(str(path), f"{_prefix(path)}{name} is a table, not {value!r}")
        return _values(path, command, table, tables.get(table, {}))


def _found(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for place in (folder, *folder.parents):
        for name in (OWN, SHARED):
            path = place / name
            if path.is_file():
                tables = _tables(path)
                if tables is not None:
                    yield path, tables
        if (place / ".git").exists():
            return


def _tables(path: Path) -> Mapping[str, Any] | None:
    """The tables of a file; None for a pyproject.toml that has none of ours."""
    with blame(str(path)):
        try:
            body = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Failure(str(path), f"is no TOML: {error}") from error
    if path.name != SHARED:
        return body
    mine = body.get("tool", {}).get("bpfpatch")
    return mine if isinstance(mine, dict) else None


def _prefix(path: Path) -> str:
    return "tool.bpfpatch." if path.name == SHARED else ""


def _known(path: Path, given: Mapping[str, Any], known: Any, message: str) -> None:
    for name in given:
        if name not in known:
            raise Failure(str(path), f"{message % name}; there are {', '.join(sorted(known))}")


def _values(
    path: Path, command: click.Command, table: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    options = {
        max(one.opts, key=len).removeprefix("--"): one
        for one in command.params
        if isinstance(one, click.Option) and one.name
    }
    options = {name: one for name, one in options.items() if name not in _NOT_SET}
    where = f"{_prefix(path)}{table}"
    _known(path, given, options, f"{where} has no key %s")
    out = {}
    for name, value in given.items():
        option = options[name]
        found = _value(path, f"{where}.{name}", option, value)
        if name in _PATHS:
            found = _relative(path, found)
        assert option.name is not None
        out[option.name] = found
    return out


def _value(path: Path, where: str, option: click.Option, value: Any) -> Any:
    """A value of the option's type.

    Raises:
        Failure: it is of another.
    """
    if option.is_flag:
        is_right, wanted = isinstance(value, bool), "true or false"
    elif option.multiple:
        if where.endswith(".path-map") and isinstance(value, dict):
            value = [f"{old}={new}" for old, new in value.items()]
        value = [value] if isinstance(value, str) else value
        is_right = isinstance(value, list) and all(isinstance(one, str) for one in value)
        wanted = "a text, or a list of them"
    elif isinstance(option.type, click.types.FloatParamType | click.types.IntParamType):
        is_right = isinstance(value, int | float) and not isinstance(value, bool)
        wanted = "a number"
    else:
        is_right, wanted = isinstance(value, str), "a text"
    if not is_right:
        raise Failure(str(path), f"{where} is {wanted}, not {value!r}")
    return value


def _relative(path: Path, value: Any) -> Any:
    """Paths from where the command runs, of those from where the file is."""
    if isinstance(value, list):
        return [_relative(path, one) for one in value]
    return value if value == "-" else os.path.relpath(path.parent / value)
