"""What can be known of code without running it."""

from .blocks import Blocks
from .constants import Constants
from .reach import Reach, reachable

__all__ = ["Blocks", "Constants", "Reach", "reachable"]
