"""Options of one meaning have one name in all commands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest

click = pytest.importorskip("click")

from bpfpatch.cli.app import cli  # noqa: E402 - needs click
from bpfpatch.cli.options import Real  # noqa: E402

SHORT = {
    "-U": "--context",
    "-V": "--version",
    "-f": "--follow",
    "-h": "--help",
    "-m": "--missing",
    "-n": "--max-records",
    "-o": "--output",
    "-p": "--pipeline",
    "-q": "--quiet",
    "-v": "--verbose",
}
SEVERAL = {
    "--format": "of an input, its kind; of a report, what to make",
    "--log": "of a loader's messages a file; of the verifier's, whether to show it",
    "--pin": "where something is pinned, or is to be",
    "--trace": "of a run each instruction; of a program's loader, places",
}
"""Names that mean more than one thing, and which."""


def options() -> Iterator[tuple[str, click.Option]]:
    """(command, option) of all commands there are."""
    waiting = [click.Context(cli, info_name="bpfpatch", **cli.context_settings)]
    while waiting:
        context = waiting.pop()
        if isinstance(context.command, click.Group):
            for name in context.command.list_commands(context):
                command = context.command.get_command(context, name)
                assert command is not None
                waiting.append(click.Context(command, info_name=name, parent=context))
        for param in context.command.get_params(context):
            if isinstance(param, click.Option):
                yield context.command_path, param


def test_short_and_long_names_belong_together() -> None:
    """A short name is of one long name in all commands, and that has it in all."""
    assert len(list(options())) > 100
    for path, option in options():
        names = [*option.opts, *option.secondary_opts]
        shorts = [name for name in names if not name.startswith("--")]
        longs = [name for name in names if name.startswith("--")]
        assert [SHORT.get(name) for name in shorts] == longs[: len(shorts)], (path, names)
        has_short = [name for name, long in SHORT.items() if long in longs]
        assert shorts == has_short, (path, names)


def test_one_name_takes_one_kind_of_value() -> None:
    """Where a long name is in several commands, it takes the same there, or is known for not."""
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, option in options():
        choices = getattr(option.type, "choices", "")
        takes = "nothing" if option.is_flag else f"{option.type.name} {choices}"
        for name in option.opts:
            if name.startswith("--"):
                kinds[name][takes].append(path)
    strange = {name: dict(found) for name, found in kinds.items() if len(found) > 1}
    assert {name: found for name, found in strange.items() if name not in SEVERAL} == {}


def test_one_meaning_has_one_name() -> None:
    """Options of two names never share the text that says what they do."""
    names: dict[str, set[str]] = defaultdict(set)
    for _, option in options():
        assert option.help, option.opts
        names[option.help].add(option.opts[-1])
    assert {text: found for text, found in names.items() if len(found) > 1} == {}


def test_every_command_has_examples() -> None:
    """Help ends with commands to copy."""
    names = cli.list_commands(click.Context(cli))
    assert len(names) > 15
    for name in names:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert f"bpfpatch {name}" in (command.epilog or ""), name


def test_no_option_takes_nan() -> None:
    """A number with a fraction is a `Real`, since NaN is in every range of click's own."""
    numbers = [
        (command, one)
        for command, one in options()
        if isinstance(one.type, click.types.FloatParamType)
    ]
    assert len(numbers) > 5
    assert [(command, one.name) for command, one in numbers if not isinstance(one.type, Real)] == []
