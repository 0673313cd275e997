"""Prove that a guard never fires: with z3, over a window of code in front of it."""

from .window import is_available, never_taken

__all__ = ["is_available", "never_taken"]
