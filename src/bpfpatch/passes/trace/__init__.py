"""The trace pass, and what its records mean."""

from .mapping import MAP_NAME, SECTION, TraceMap, TracePlace, TraceRecord, trace_map
from .places import Spot, find_spots
from .trace import Trace

__all__ = [
    "MAP_NAME",
    "SECTION",
    "Spot",
    "Trace",
    "TraceMap",
    "TracePlace",
    "TraceRecord",
    "find_spots",
    "trace_map",
]
