"""Make an object smaller, with the running kernel as judge.

What the pass ``shrink`` makes is loaded. Where the verifier does not take it any more, or takes
longer for it, the steps that did that are found and left out, function by function.
"""

from .api import Shrunk, shrink_object
from .judge import MOST_DEARER, ProgramCost
from .report import FunctionRow, ProgramRow, ShrinkReport

__all__ = [
    "MOST_DEARER",
    "FunctionRow",
    "ProgramCost",
    "ProgramRow",
    "ShrinkReport",
    "Shrunk",
    "shrink_object",
]
