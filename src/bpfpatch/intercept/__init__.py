"""What `bpfpatch intercept` does with the loads of a command."""

from .choice import Choice
from .rewrite import Rewriter
from .told import told_load

__all__ = ["Choice", "Rewriter", "told_load"]
