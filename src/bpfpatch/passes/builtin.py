"""The passes that come with the package, each imported when it is first asked for.

Most runs need two or three of them, and a command line starts faster so.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .base import Pass

CLASSES: Final = {
    "blind": "Blind",
    "cover": "Cover",
    "ctx-access": "CtxAccess",
    "dce": "Dce",
    "fastcall": "Fastcall",
    "fixup-calls": "FixupCalls",
    "inline-loop": "InlineLoop",
    "nops": "Nops",
    "sprinkle": "Sprinkle",
    "trace": "Trace",
    "zext": "Zext",
}
"""Class by name of the pass; its module has that name, too, with ``_`` for ``-``."""


def built_in(name: str) -> type[Pass]:
    """One of these passes, by name.

    Raises:
        KeyError: none of them.
    """
    cls = CLASSES[name]
    module: Any = import_module(f".{name.replace('-', '_')}", __package__)
    found: type[Pass] = getattr(module, cls)
    return found
