"""Rewriting passes, and pipelines of them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Pass, register, registered
from .builtin import CLASSES, built_in
from .pipeline import PassReport, Pipeline, Report, Result
from .setting import ObjectEdit, Setting
from .target import ARCHES, Arch, Target

if TYPE_CHECKING:
    from .blind import Blind
    from .const import Const
    from .cover import Cover
    from .dce import Dce
    from .lower import Lower
    from .nops import Nops
    from .peephole import Peephole
    from .scratch import Scratch, ScratchPlace
    from .shrinking.copies import Copies
    from .shrinking.deadstores import DeadStores
    from .shrinking.jumps import Jumps
    from .shrinking.shrink import Shrink
    from .shrinking.stores import Stores
    from .sprinkle import Sprinkle
    from .trace import Trace
    from .zext import Zext

_NAMES = {path.rpartition(".")[2]: name for name, path in CLASSES.items()}

_LATE = ("Scratch", "ScratchPlace")


def __getattr__(name: str) -> Any:
    """Import a pass's class when it is first used."""
    if name in _LATE:
        globals()[name] = late = getattr(import_module(f"{__name__}.scratch"), name)
        return late
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = built_in(_NAMES[name])
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "ARCHES",
    "Arch",
    "Blind",
    "Const",
    "Copies",
    "Cover",
    "CtxAccess",
    "Dce",
    "DeadStores",
    "Fastcall",
    "FixupCalls",
    "InlineLoop",
    "Jumps",
    "Lower",
    "Nops",
    "ObjectEdit",
    "Pass",
    "PassReport",
    "Peephole",
    "Pipeline",
    "Report",
    "Result",
    "Scratch",
    "ScratchPlace",
    "Setting",
    "Shrink",
    "Sprinkle",
    "Stores",
    "Target",
    "Trace",
    "Zext",
    "register",
    "registered",
]
