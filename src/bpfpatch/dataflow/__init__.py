"""What any compiler knows of code: blocks, reachability, liveness, registers, stack use."""

from .blocks import Blocks
from .constants import Constants
from .initialized import initialized
from .liveness import Liveness, upper_halves_read
from .reach import Reach, reachable
from .stackuse import StackUse

__all__ = [
    "Blocks",
    "Constants",
    "Liveness",
    "Reach",
    "StackUse",
    "initialized",
    "reachable",
    "upper_halves_read",
]
