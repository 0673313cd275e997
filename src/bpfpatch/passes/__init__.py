"""Rewriting passes, and pipelines of them."""

from .base import Pass, register, registered
from .dce import Dce
from .nops import Nops
from .pipeline import PassReport, Pipeline, Report, Result
from .setting import ObjectEdit, Setting
from .sprinkle import Sprinkle
from .target import ARCHES, Arch, Target

__all__ = [
    "ARCHES",
    "Arch",
    "Dce",
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
    "register",
    "registered",
]
