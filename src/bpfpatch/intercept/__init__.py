"""What `bpfpatch intercept` does with the loads of a command."""

from .captured import Captured, captured
from .rewrite import Rewriter, RewrittenLoad
from .session import Choice, Session, Wanted, told_load

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
