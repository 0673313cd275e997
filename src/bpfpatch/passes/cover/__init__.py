"""cover: count which blocks and branches run."""

from .cover import Cover
from .flow import OUTSIDE, Way
from .mapping import SECTION, CoverMap, FunctionMap, LineRow

__all__ = ["OUTSIDE", "SECTION", "Cover", "CoverMap", "FunctionMap", "LineRow", "Way"]
