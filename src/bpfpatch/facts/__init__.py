"""What is known of a program beside its instructions: its kind, its maps, and aux data."""

from .columns import (
    AUX_COLUMNS,
    CALL_KEY,
    CALL_MAP,
    CALLBACK,
    LD_MAP,
    MANY,
    MEM_ID,
    MEM_TYPE,
    NONE,
    SEEN,
    STACK_DEPTH,
    ZEXT_DST,
    MemType,
    column,
)
from .functions import FIRST_FUNCTION, FUNCTIONS, function, function_name
from .kinds import AttachType, MapFlag, MapType, ProgFlag, ProgType
from .maps import MapDefinition, MapFacts
from .subject import Subject

__all__ = [
    "AUX_COLUMNS",
    "CALLBACK",
    "CALL_KEY",
    "CALL_MAP",
    "FIRST_FUNCTION",
    "FUNCTIONS",
    "LD_MAP",
    "MANY",
    "MEM_ID",
    "MEM_TYPE",
    "NONE",
    "SEEN",
    "STACK_DEPTH",
    "ZEXT_DST",
    "AttachType",
    "MapDefinition",
    "MapFacts",
    "MapFlag",
    "MapType",
    "MemType",
    "ProgFlag",
    "ProgType",
    "Subject",
    "column",
    "function",
    "function_name",
]
