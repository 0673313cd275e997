"""The trace pass, and what its records mean."""

from .mapping import MAP_NAME, SECTION, TraceMap, TracePlace, TraceRecord, trace_map
from .places import TraceSpot, find_spots
from .trace import Trace

__all__ = [
    "MAP_NAME",
    "SECTION",
    "Trace",
    "TraceMap",
    "TracePlace",
    "TraceRecord",
    "TraceSpot",
    "find_spots",
    "trace_map",
]
