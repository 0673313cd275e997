"""The passes that come with the package, each imported when it is first asked for.

Most runs need two or three of them, and a command line starts faster so.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .base import Pass

CLASSES: Final = {
    "blind": "passes.blind.Blind",
    "const": "passes.const.Const",
    "cover": "passes.cover.Cover",
    "copies": "passes.shrinking.copies.Copies",
    "ctx-access": "linux.passes.ctx_access.CtxAccess",
    "dce": "passes.dce.Dce",
    "dead-stores": "passes.shrinking.deadstores.DeadStores",
    "fastcall": "linux.passes.fastcall.Fastcall",
    "fixup-calls": "linux.passes.fixup_calls.FixupCalls",
    "inline-loop": "linux.passes.inline_loop.InlineLoop",
    "jumps": "passes.shrinking.jumps.Jumps",
    "lower": "passes.lower.Lower",
    "nops": "passes.nops.Nops",
    "peephole": "passes.peephole.Peephole",
    "shrink": "passes.shrinking.shrink.Shrink",
    "sprinkle": "passes.sprinkle.Sprinkle",
    "stores": "passes.shrinking.stores.Stores",
    "trace": "passes.trace.Trace",
    "zext": "passes.zext.Zext",
}
"""Where each pass's class is, below the package."""


def built_in(name: str) -> type[Pass]:
    """One of these passes, by name.

    Raises:
        KeyError: none of them.
    """
    module_name, _, cls = CLASSES[name].rpartition(".")
    module: Any = import_module(f"bpfpatch.{module_name}")
    found: type[Pass] = getattr(module, cls)
    return found
