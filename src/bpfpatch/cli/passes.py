"""``bpfpatch passes``: what a pipeline can have."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Final, get_type_hints

import click

from bpfpatch.passes import Pass, registered
from bpfpatch.text import unknown

from .failure import Command
from .plugins import load_plugins, plugin_option
from .screen import echo_json, echo_table

EPILOG: Final = """\b
Examples:
  bpfpatch passes
  bpfpatch passes sprinkle
  bpfpatch passes --plugin count.py --json

\b
A pipeline is passes and their options: dce{branches=false},sprinkle{every=2,seed=7},nops
"""


@click.command("passes", cls=Command, epilog=EPILOG)
@click.argument("name", required=False)
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, plugins: tuple[str, ...], *, as_json: bool) -> None:
    """List the passes, or say what there is to know about the one called NAME."""
    load_plugins(plugins)
    passes = registered()
    if name is not None and name not in passes:
        raise click.BadParameter(unknown("pass", name, passes))
    if as_json:
        chosen = passes if name is None else {name: passes[name]}
        echo_json([_json(one) for one in chosen.values()])
    elif name is None:
        rows = [
            (one.name, _result(one), _options_text(one), one.summary()) for one in passes.values()
        ]
        echo_table("", ["pass", "result", "options", "what it does"], rows)
    else:
        _describe(passes[name])


def _result(one: type[Pass]) -> str:
    return "kernel-internal" if one.is_internal else "loadable"


def _options_text(one: type[Pass]) -> str:
    parts = [f"{option.name}={_default(option)}" for option in one.options()]
    return ", ".join(parts) or "none"


def _default(option: dataclasses.Field[Any]) -> str:
    if option.default is dataclasses.MISSING:
        return "..."
    value = option.default
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _describe(one: type[Pass]) -> None:
    click.echo(f"{one.name}  ({_result(one)})\n")
    click.echo(inspect.getdoc(one) or "")
    types = get_type_hints(one)
    if one.options():
        click.echo("\nOptions:")
    for option in one.options():
        click.echo(f"  {option.name}={_default(option)}  ({_type_name(types[option.name])})")
    if one.needs:
        click.echo(f"\nNeeds of aux data: {', '.join(one.needs)}")
    if one.uses:
        click.echo(f"\nGoes by, where it is there: {', '.join(one.uses)}")


def _json(one: type[Pass]) -> dict[str, Any]:
    types = get_type_hints(one)
    return {
        "name": one.name,
        "loadable": not one.is_internal,
        "summary": one.summary(),
        "doc": inspect.getdoc(one) or "",
        "needs": list(one.needs),
        "uses": list(one.uses),
        "options": [
            {
                "name": option.name,
                "type": _type_name(types[option.name]),
                "required": option.default is dataclasses.MISSING,
                "default": None if option.default is dataclasses.MISSING else option.default,
            }
            for option in one.options()
        ],
    }
