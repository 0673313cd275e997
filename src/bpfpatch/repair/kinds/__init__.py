"""The kinds of mending, a file each; in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpfpatch.linux.log.messages import Flaw

from . import (
    context,
    impossible,
    packet,
    pointer,
    region,
    returned,
    scalar,
    sizes,
    spill,
    thread,
    unset,
    wide,
)
from .base import Mend, Mended, Tools

_MODULES: Final = (
    unset,
    spill,
    context,
    wide,
    pointer,
    scalar,
    impossible,
    thread,
    region,
    sizes,
    packet,
    returned,
)


def kinds_for(kind: Flaw) -> Iterator[Mend]:
    """The kinds of mending for a kind of refusal, those that change nothing first."""
    for module in _MODULES:
        if kind in module.KINDS:
            yield module.mend


__all__ = ["Mend", "Mended", "Tools", "kinds_for"]
