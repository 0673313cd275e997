"""Prove that a guard never fires: with z3, over a window of code in front of it."""

from .window import never_taken

__all__ = ["never_taken"]
