"""Which context a program of which kind has."""

from __future__ import annotations

from collections.abc import Iterable

from bpfpatch.errors import OptionError
from bpfpatch.facts import ProgType
from bpfpatch.text import unknown

from .table import ContextTable

_BY_NAME: dict[str, ContextTable] = {}
_BY_TYPE: dict[ProgType, str] = {}


def register_context(
    context: ContextTable, prog_types: Iterable[ProgType | str] = ()
) -> ContextTable:
    """Make a context known by its name, and as that of kinds of programs.

    Args:
        context: its name becomes a value of the pass's option ``context``.
        prog_types: kinds of programs that have it, where the option does not say otherwise;
            they may have had another one until now.

    Raises:
        OptionError: another context has that name, or there is no such kind.
    """
    known = _BY_NAME.get(context.name)
    if known is not None and known != context:
        raise OptionError(f"two contexts are called {context.name!r}; choose another name")
    types = [ProgType.of(prog_type) for prog_type in prog_types]
    _BY_NAME[context.name] = context
    for prog_type in types:
        _BY_TYPE[prog_type] = context.name
    return context


def contexts() -> dict[str, ContextTable]:
    """All registered contexts by name, in order of names."""
    return dict(sorted(_BY_NAME.items()))


def context(name: str) -> ContextTable:
    """A registered context.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in _BY_NAME:
        raise OptionError(unknown("context", name, contexts()))
    return _BY_NAME[name]


def context_of(prog_type: ProgType) -> ContextTable | None:
    """The context of a kind of programs; None where what they see is the real thing."""
    name = _BY_TYPE.get(prog_type)
    return None if name is None else _BY_NAME[name]
