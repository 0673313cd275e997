"""Programs, the tables anchored to their instructions, and how those move."""

from .anchors import Anchor, AnchoredTable, OnReplace
from .columns import Column
from .program import (
    FUNC_INFO,
    JUMP_TABLE,
    LANDING_PAD,
    LINE,
    LINE_INFO,
    Program,
    SourceLine,
    Subprogs,
)
from .refs import FIELD_LIMITS, References
from .remap import Remap
from .types import DELETED, INSERTED, LOST, REPLACED
from .validate import check_references, validate, violations

__all__ = [
    "DELETED",
    "FIELD_LIMITS",
    "FUNC_INFO",
    "INSERTED",
    "JUMP_TABLE",
    "LANDING_PAD",
    "LINE",
    "LINE_INFO",
    "LOST",
    "REPLACED",
    "Anchor",
    "AnchoredTable",
    "Column",
    "OnReplace",
    "Program",
    "References",
    "Remap",
    "SourceLine",
    "Subprogs",
    "check_references",
    "validate",
    "violations",
]
