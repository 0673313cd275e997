"""What `bpfpatch intercept` does with the loads of a command."""

from .captured import Captured, captured
from .choice import Choice
from .rewrite import Rewriter, RewrittenLoad
from .session import Session, Wanted
from .told import told_load

__all__ = [
    "Captured",
    "Choice",
    "Rewriter",
    "RewrittenLoad",
    "Session",
    "Wanted",
    "captured",
    "told_load",
]
