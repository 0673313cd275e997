"""Pictures of a change: what differs between two programs, as text, HTML and JSON."""

from .diff import Diff, FunctionDiff, Op, diff_programs

__all__ = ["Diff", "FunctionDiff", "Op", "diff_programs"]
