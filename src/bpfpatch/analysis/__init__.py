"""What can be known of code without running it."""

from .auxdata import aux_data
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
    "aux_data",
    "initialized",
    "reachable",
    "upper_halves_read",
]
