"""Rewriting passes, and pipelines of them."""

from .base import Pass, register, registered
from .blind import Blind
from .cover import Cover
from .ctx_access import CtxAccess
from .dce import Dce
from .fastcall import Fastcall
from .fixup_calls import FixupCalls
from .inline_loop import InlineLoop
from .nops import Nops
from .pipeline import PassReport, Pipeline, Report, Result
from .setting import ObjectEdit, Setting
from .sprinkle import Sprinkle
from .target import ARCHES, Arch, Target
from .trace import Trace
from .zext import Zext

__all__ = [
    "ARCHES",
    "Arch",
    "Blind",
    "Cover",
    "CtxAccess",
    "Dce",
    "Fastcall",
    "FixupCalls",
    "InlineLoop",
    "Nops",
    "ObjectEdit",
    "Pass",
    "PassReport",
    "Pipeline",
    "Report",
    "Result",
    "Setting",
    "Sprinkle",
    "Target",
    "Trace",
    "Zext",
    "register",
    "registered",
]
