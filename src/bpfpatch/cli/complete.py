"""What a shell completes in place of each kind of value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import click
from click.shell_completion import CompletionItem

_FILES: Final = ("OBJ", "A", "B", "BINARY", "FILE", "OUT", "PATH", "COUNTERS", "TRACED_OBJ")
_FOLDERS: Final = ("DIR",)


class _Completed(click.types.StringParamType):
    """Text that a shell completes by what its metavar says it is."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What may stand there."""
        del ctx, param
        if self.kind in _FILES:
            return [CompletionItem(incomplete, type="file")]
        if self.kind in _FOLDERS:
            return [CompletionItem(incomplete, type="dir")]
        if self.kind == "PIPELINE":
            return _passes(incomplete)
        return _types(incomplete)


def complete_values(params: Iterable[click.Parameter]) -> None:
    """Let a shell complete the values of parameters of which it can be known what they are."""
    for param in params:
        name = param.metavar or (param.name or "").upper()
        kind = name.removesuffix("...").partition(".")[0]
        if param.type is click.STRING and kind in (*_FILES, *_FOLDERS, "PIPELINE", "TYPE"):
            param.type = _Completed(kind)


def _passes(incomplete: str) -> list[CompletionItem]:
    from bpfpatch.passes.builtin import CLASSES  # noqa: PLC0415 - only where somebody asks

    before, comma, begun = incomplete.rpartition(",")
    found = sorted(name for name in CLASSES if name.startswith(begun))
    return [CompletionItem(f"{before}{comma}{name}") for name in found]


def _types(incomplete: str) -> list[CompletionItem]:
    from bpfpatch.facts.kinds import ProgType  # noqa: PLC0415 - the same

    names = sorted(kind.text for kind in ProgType if kind)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
