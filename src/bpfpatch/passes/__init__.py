"""Rewriting passes, and pipelines of them."""

from .base import Pass, register, registered
from .dce import Dce
from .nops import Nops
from .pipeline import PassReport, Pipeline, Report, Result
from .sprinkle import Sprinkle
from .target import Target

__all__ = [
    "Dce",
    "Nops",
    "Pass",
    "PassReport",
    "Pipeline",
    "Report",
    "Result",
    "Sprinkle",
    "Target",
    "register",
    "registered",
]
